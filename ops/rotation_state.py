"""The state of an unfinished rotation of secrets, on disk: what is in use now, and what is accepted beside it.

`secrets/.rotation/` has the former and the new value of each secret that is being rotated, and its step.
`secrets/.used/` has a copy of each value that the stack uses: a file that differs from it was edited by hand.

| step | clients use | servers accept |
|---|---|---|
| `prepare` | the former value | the former value |
| `admit`, `switch` | the former value, or the new one by an interim log-in | both |
| `adopt`, `wait` | the new value | both |
| `drop` | the new value | the new value |
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from ops.atomic_file import write_atomically
from ops.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from ops.project import Project

Step = Literal["prepare", "admit", "switch", "adopt", "wait", "drop"]
STEPS: Final[tuple[Step, ...]] = ("prepare", "admit", "switch", "adopt", "wait", "drop")
"""In their order. A secret waits in `wait` until nothing that was signed with the former value is valid."""
FOLDER: Final = ".rotation"
USED: Final = ".used"
RECORD: Final = "record.json"
OWNER_ONLY: Final = 0o600
FERNET: Final = "fernet_key"
"""Holds several keys, separated by commas: the first encrypts, all decrypt."""
EDITABLE: Final = frozenset(
    {"airflow_admin_password", "airflow_monitoring_password", "flower_password", "observability_password"}
)
"""The secrets that `up` sets everywhere when their file changes, and those that nothing in the stack stores."""
FIXED: Final = frozenset({"grafana_admin_password", "backup_passphrase"})


@dataclass(frozen=True)
class Rotation:
    """An unfinished rotation; without a step there is none.

    Attributes:
        steps: The step of each secret.
        until: When a secret's former value may be dropped, in seconds since the epoch.
    """

    steps: Mapping[str, Step] = field(default_factory=dict)
    until: Mapping[str, float] = field(default_factory=dict)

    def due(self, now: float) -> list[str]:
        """Return the secrets whose next step may be done now: all but those that wait."""
        return [name for name, step in self.steps.items() if step != "wait" or self.until.get(name, 0.0) <= now]


@dataclass(frozen=True)
class InUse:
    """What clients use, and what servers accept besides.

    Attributes:
        current: The value of each secret that clients use.
        beside: A second value that servers accept, of secrets that are being rotated.
        interim: The secrets whose clients log in by an interim user, with the value of `beside`.
    """

    current: Mapping[str, str]
    beside: Mapping[str, str] = field(default_factory=dict)
    interim: frozenset[str] = frozenset()

    def accepted(self, name: str) -> list[str]:
        """Return the values that a server accepts, the used one first."""
        return [self.current[name], *([self.beside[name]] if name in self.beside else [])]


def folder(project: Project) -> Path:
    """Return the folder of an unfinished rotation."""
    return project.secrets / FOLDER


def read(project: Project) -> Rotation:
    """Return the unfinished rotation.

    Raises:
        StackError: Its record is damaged.
    """
    path = folder(project) / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return Rotation(dict(record["steps"]), dict(record["until"]))
    except FileNotFoundError:
        return Rotation()
    except (ValueError, KeyError, TypeError) as error:
        raise StackError(
            f"cannot read the record of the rotation: {error}",
            where=project.shown(path),
            hint="restore the folder from your backup",
        ) from error


def write(project: Project, rotation: Rotation) -> None:
    """Write the record, then remove the values of the secrets that have no step any more."""
    kept = folder(project)
    if not rotation.steps:
        (kept / RECORD).unlink(missing_ok=True)
        shutil.rmtree(kept, ignore_errors=True)
        return
    record = {"steps": dict(rotation.steps), "until": dict(rotation.until)}
    write_atomically(kept / RECORD, json.dumps(record, indent=1) + "\n", OWNER_ONLY)
    for path in (*kept.glob("*.new"), *kept.glob("*.old")):
        if path.stem not in rotation.steps:
            path.unlink()


def keep_values(project: Project, name: str, former: str, new: str) -> None:
    """Keep both values of a secret before its first step."""
    folder(project).mkdir(mode=0o700, parents=True, exist_ok=True)
    for suffix, text in (("old", former), ("new", new)):
        write_atomically(folder(project) / f"{name}.{suffix}", text + "\n", OWNER_ONLY)


def values(project: Project, name: str) -> tuple[str, str]:
    """Return the former and the new value of a secret that is being rotated."""
    former, new = ((folder(project) / f"{name}.{suffix}").read_text(encoding="utf-8") for suffix in ("old", "new"))
    return former.strip(), new.strip()


def file_value(name: str, step: Step, former: str, new: str) -> str:
    """Return what the operator's file of a secret holds at a step: what clients use.

    That of the Fernet key holds both keys from `adopt` on, so that a backup of that time has both.
    """
    if STEPS.index(step) < STEPS.index("adopt"):
        return former
    return f"{new},{former}" if name == FERNET and step != "drop" else new


def in_use(project: Project, files: Mapping[str, str]) -> InUse:
    """Return what clients use and what servers accept besides.

    Args:
        project: The stack.
        files: The content of each secret file of the operator.
    """
    rotation = read(project)
    current, beside, interim = dict(files), {}, set()
    for name, step in rotation.steps.items():
        former, new = values(project, name)
        current[name] = file_value(name, step, former, new)
        if step in ("admit", "switch"):
            beside[name] = new
            interim.add(name)
        elif step in ("adopt", "wait") and name != FERNET:
            beside[name] = former
    return InUse(current, beside, frozenset(interim))


def refuse_unfinished(project: Project, command: str) -> None:
    """Refuse a command while a rotation is between two steps; it may wait until tokens have expired.

    Raises:
        StackError: The error names a secret.
    """
    if unfinished := [name for name, step in read(project).steps.items() if step != "wait"]:
        raise StackError(
            f"cannot run {command}: the rotation of {unfinished[0]} has not ended",
            where=project.shown(folder(project) / RECORD),
            hint="run ./ops/stack rotate --finish first",
        )


def abandon(project: Project) -> None:
    """Forget an unfinished rotation, and which values are in use, because all its containers start with the files.

    Clients can log in with the value of their file at every step, once the roles of Postgres have it.
    """
    for name in (FOLDER, USED):
        shutil.rmtree(project.secrets / name, ignore_errors=True)


def kept_files(project: Project) -> list[Path]:
    """Return every file of this module that holds a value of a secret."""
    return [*folder(project).glob("*.old"), *folder(project).glob("*.new"), *(project.secrets / USED).glob("*")]


# ---- files that were edited by hand


def used(project: Project, name: str) -> str | None:
    """Return the value of a secret that the stack uses; None if it has not started with one."""
    path = project.secrets / USED / name
    return path.read_text(encoding="utf-8").strip() if path.exists() else None


def note_used(project: Project, files: Mapping[str, str]) -> None:
    """Keep a copy of the values that the stack uses from now on."""
    kept = project.secrets / USED
    kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, text in files.items():
        if used(project, name) != text:
            write_atomically(kept / name, text + "\n", OWNER_ONLY)


def note_used_first(project: Project, files: Mapping[str, str]) -> None:
    """Keep a copy of the values that an older version started the stack with."""
    note_used(project, {name: text for name, text in files.items() if used(project, name) is None})


def edited(project: Project, files: Mapping[str, str]) -> list[str]:
    """Return the secrets whose file differs from the value that the stack uses.

    While a secret is being rotated, its file holds either value: the step that writes it may have been interrupted.
    """
    steps = read(project).steps

    def expected(name: str) -> set[str]:
        if name not in steps:
            return {text} if (text := used(project, name)) is not None else {files[name]}
        return {file_value(name, step, *values(project, name)) for step in STEPS}

    return [name for name, text in files.items() if text not in expected(name)]


def refuse_edited(project: Project, files: Mapping[str, str], but: Collection[str] = EDITABLE) -> None:
    """Refuse a secret file that was edited by hand, where the new value would only reach a part of the stack.

    Args:
        project: The stack.
        files: The content of each secret file of the operator.
        but: The secrets whose files may have been edited.

    Raises:
        StackError: The error names the first file, and the command that takes its value over.
    """
    for name in edited(project, files):
        if name not in but:
            where = project.shown(project.secrets / name)
            former = project.shown(project.secrets / USED / name)
            way = f"run ./ops/stack rotate {name}, which makes the whole stack use the new value; or return with: "
            raise StackError(
                f"cannot use the secret {name}: its file was edited, and the stack uses the value of before",
                where=where,
                hint=f"{'return with: ' if name in FIXED else way}cp {former} {where}",
            )
