"""The course of a rotation: one step after the other, each recorded when it is complete."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from ops import rotation_state, secrets_store
from ops.atomic_file import write_atomically
from ops.rotation.rotated_secrets import TABLE
from ops.rotation_state import STEPS, Rotation, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ops.project import Project


class Executor(Protocol):
    """What the steps do to the running stack; each method may be called again after an interruption."""

    def prepare(self, names: Collection[str]) -> None:
        """Create interim log-ins."""

    def renew(self, names: Collection[str]) -> None:
        """Give every container the files of the recorded step."""

    def switch(self, names: Collection[str]) -> None:
        """Make servers with one value take the new one."""

    def encrypt_again(self) -> None:
        """Encrypt stored data with the new key."""

    def drop(self, names: Collection[str]) -> None:
        """Remove interim log-ins."""


def begin(project: Project, names: Collection[str]) -> None:
    """Record the rotation of these secrets, with a new value of each.

    The value of a file that was edited by hand is the new one, and the file gets the former until clients use the new.
    """
    current = rotation_state.read(project)
    files = {name: secrets_store.read(project, name) for name in names}
    edited = rotation_state.edited(project, files)
    for name in names:
        former = rotation_state.used(project, name) or files[name]
        new = files[name] if name in edited else secrets_store.GENERATORS[name]()
        rotation_state.keep_values(project, name, former, new)
    steps = {**current.steps, **dict.fromkeys(names, STEPS[0])}
    rotation_state.write(project, replace(current, steps=steps))
    write_files(project, names, STEPS[0])


def finish(project: Project, executor: Executor, report: Callable[[str], None]) -> None:
    """Do every step that may be done now.

    Raises:
        StackError: A step failed; the next call begins with it.
    """
    while due := rotation_state.read(project).due(time.time()):
        steps = rotation_state.read(project).steps
        step = min((steps[name] for name in due), key=STEPS.index)
        names = [name for name in due if steps[name] == step]
        if step != "wait":
            report(f"{step}: {', '.join(names)}")
        do(project, executor, step, names)
        advance(project, step, names)
    for name, until in rotation_state.read(project).until.items():
        at = datetime.fromtimestamp(until, UTC).strftime("%Y-%m-%d %H:%M UTC")
        report(
            f"{name}: the former key is accepted until {at}; the next ./ops/stack up or rotate --finish then drops it"
        )


def do(project: Project, executor: Executor, step: Step, names: Collection[str]) -> None:
    """Do a step of these secrets."""
    if step == "prepare":
        executor.prepare(names)
    elif step == "admit":
        executor.renew(names)
    elif step == "switch":
        executor.switch(names)
    elif step == "adopt":
        write_files(project, names, step)
        executor.renew(names)
        if rotation_state.FERNET in names:
            executor.encrypt_again()
    elif step == "drop":
        write_files(project, names, step)
        executor.renew(names)
        executor.drop(names)


def write_files(project: Project, names: Collection[str], step: Step) -> None:
    """Write what clients use at a step into the operator's files, where it differs: a file's time is its age."""
    for name in names:
        text = rotation_state.file_value(name, step, *rotation_state.values(project, name))
        if secrets_store.read(project, name) != text:
            write_atomically(project.secrets / name, text + "\n", secrets_store.OWNER_ONLY)


def advance(project: Project, step: Step, names: Collection[str]) -> None:
    """Record that a step of these secrets is complete."""
    rotation = rotation_state.read(project)
    steps, until = dict(rotation.steps), dict(rotation.until)
    for name in names:
        if step == "drop":
            del steps[name]
            continue
        steps[name] = STEPS[STEPS.index(step) + 1]
        if steps[name] == "wait":
            until[name] = time.time() + TABLE[name].valid_seconds
        elif step == "wait":
            until.pop(name, None)
    if step in ("adopt", "drop"):
        rotation_state.note_used(project, {name: secrets_store.read(project, name) for name in names})
    rotation_state.write(project, Rotation(steps, until))
