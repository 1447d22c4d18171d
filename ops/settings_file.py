"""compose/.env: the decisions of `up` and the operator's settings, read and checked before anything is changed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ops import compose_override, container_limits, setting_checks
from ops.atomic_file import write_atomically
from ops.errors import FAILURE, StackError
from ops.services import (
    BACKUP,
    BACKUP_PROFILES,
    DATA_PROFILES,
    DEFAULT_PROFILES,
    OPTIONAL,
    PROFILES,
    PUBLISHED,
    SCALABLE,
    SLACK_STUB_PROFILE,
    replicas_variable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ops.project import Project
    from ops.setting_checks import Problem

HEADER = """\
# Written by `./ops/stack up`, which keeps your changes: a value in this file wins over its default. `docker compose
# up -d` in this folder reads it too. Every `up` rewrites the images. README.md describes every setting.
"""
ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")
# The syntax of docker compose: quoted, or unquoted up to a comment. https://docs.docker.com/compose/how-tos/environment-variables/
VALUE = re.compile(r"""'(?P<single>[^']*)'\s*(#.*)?|"(?P<double>[^"]*)"\s*(#.*)?|(?P<plain>[^'"#]?.*?)(\s+#.*)?""")


def defaults(project: Project) -> dict[str, str]:
    """Return the settings of a first `up`, in the order in which they are written."""
    return {
        "COMPOSE_PROJECT_NAME": "airflow-ha",
        "COMPOSE_PROFILES": ",".join(DEFAULT_PROFILES),
        "SECRETS_DIR": "./secrets" if project.is_default else str(project.secrets),
        "GENERATED_DIR": "./generated" if project.is_default else str(project.generated),
        "BIND_ADDRESS": "127.0.0.1",
        **{published.port: str(published.default_port) for published in PUBLISHED},
        "POSTGRES_HOST": "postgres",
        "POSTGRES_PORT": "5432",
        "REDIS_HOST": "redis",
        "REDIS_PORT": "6379",
        **{replicas_variable(service): "1" if service == "triggerer" else "2" for service in SCALABLE},
        **{replicas_variable(service): "1" for service in compose_override.own_workers(project)},
        "WORKER_QUEUES": "default",
    }


def read(project: Project) -> dict[str, str]:
    """Return the settings of .env over the defaults.

    Raises:
        StackError: .env cannot be read, a line is not KEY=VALUE, or a value or name is not valid.
    """
    shown = project.shown(project.env_file)
    numbered = entries(project.env_file, shown)
    preset = defaults(project)
    settings = preset | {key: value for _, key, value in numbered}
    lines = {key: number for number, key, _ in numbered}
    own = {*preset, *compose_override.own_settings(project)}
    limits = container_limits.defaults(project.compose_directory)
    if problems := setting_checks.problems(settings, limits, own):
        raise refusal(settings, shown, lines, problems)
    check_profiles(profiles(settings), shown)
    return settings


def parse(path: Path, shown: str) -> dict[str, str]:
    """Return the settings of an .env file; empty if the file does not exist."""
    return {key: value for _, key, value in entries(path, shown)}


def entries(path: Path, shown: str) -> list[tuple[int, str, str]]:
    """Return the line number, key and value of each setting in an .env file.

    Raises:
        StackError: The file cannot be read, or a line is not KEY=VALUE.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise StackError(
            f"cannot read the settings: {error}", where=shown, hint="make it a text file that you may read"
        ) from error
    numbered: list[tuple[int, str, str]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        setting = assignment(line)
        if setting is None:
            raise StackError(
                f"cannot read a setting: the line is not KEY=VALUE: {line.strip()[:60]}",
                where=f"{shown}, line {number}",
                hint="fix or delete the line, or delete the file to return to the defaults",
            )
        numbered.append((number, *setting))
    return numbered


def assignment(line: str) -> tuple[str, str] | None:
    """Return the key and value of a line; None if it is not an assignment."""
    match = ASSIGNMENT.fullmatch(line.strip())
    value = VALUE.fullmatch(match[2].strip()) if match else None
    if not match or not value or (value["plain"] or "")[:1] in ("'", '"'):
        return None
    return match[1], next(text for text in (value["single"], value["double"], value["plain"]) if text is not None)


def refusal(
    settings: Mapping[str, str], shown: str, lines: Mapping[str, int], problems: Sequence[Problem]
) -> StackError:
    """Return one error of all settings that are not valid, with their lines in .env."""
    numbers = [str(lines[problem.key]) for problem in problems if problem.key in lines]
    where = f"{shown}, line{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}" if numbers else shown
    what = "; ".join(f"{problem.key}={settings[problem.key]}: {problem.reason}" for problem in problems)
    return StackError(f"cannot use {what}", where=where, hint="; ".join(problem.correction for problem in problems))


def profiles(settings: Mapping[str, str]) -> list[str]:
    """Return the profiles that the operator chose, without those that `up` adds."""
    added = (*(published.profile for published in OPTIONAL), SLACK_STUB_PROFILE, *BACKUP_PROFILES.values())
    return [name for name in settings["COMPOSE_PROFILES"].split(",") if name and name not in added]


def has_own_data(settings: Mapping[str, str]) -> bool:
    """Return whether Postgres and Redis are the stack's, not external."""
    return not set(DATA_PROFILES).isdisjoint(profiles(settings))


def check_profiles(names: list[str], where: str) -> None:
    """Refuse an unknown profile, and two profiles that exclude each other.

    Raises:
        StackError: The error names the known profiles, or the two.
    """
    for name in names:
        if name not in PROFILES:
            known = "; ".join(f"{profile}: {adds}" for profile, adds in PROFILES.items())
            raise StackError(
                f"cannot use profile {name!r}: unknown profile", where=where, hint=f"choose from the profiles: {known}"
            )
    if len(both := [name for name in DATA_PROFILES if name in names]) > 1:
        raise StackError(
            f"cannot use the profiles {' and '.join(both)} together: each starts its own Postgres and Redis",
            where=where,
            hint=f"choose one of them, for example --profile {both[-1]}",
        )
    if BACKUP in names and not both:
        raise StackError(
            f"cannot use profile {BACKUP} without {' or '.join(DATA_PROFILES)}: it backs up the stack's Postgres only",
            where=where,
            hint=f"leave out {BACKUP}, or add --profile {DATA_PROFILES[0]}",
        )


def write(project: Project, settings: Mapping[str, str]) -> bool:
    """Write the settings to .env, and return whether the file changed.

    The operator's comments and order stay, and so does each line whose value is unchanged.

    Raises:
        StackError: This user cannot write the file.
    """
    path = project.env_file
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    lines: list[str] = []
    remaining = dict(settings)
    for line in (old or HEADER).splitlines():
        key, value = assignment(line) or ("", "")
        if key not in settings or value == settings[key]:
            lines.append(line)
        elif key in remaining:
            lines.append(f"{key}={settings[key]}")
        # Otherwise the key is a duplicate: its first line has the new value.
        remaining.pop(key, None)
    lines += [f"{key}={value}" for key, value in remaining.items()]
    text = "\n".join(lines) + "\n"
    if text == old:
        return False
    try:
        write_atomically(path, text)
    except OSError as error:
        raise StackError(
            f"cannot write the settings: {error.strerror}",
            where=project.shown(path),
            hint="run this as the user who ran ./ops/stack up first",
            code=FAILURE,
        ) from error
    return True


def image_origins(settings: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the reference and the origin of each image in .env, by its key."""
    origins = dict(pair.split("=", 1) for pair in settings.get("STACK_IMAGES_ORIGIN", "").split(",") if "=" in pair)
    return {key: {"reference": settings[key], "origin": origin} for key, origin in origins.items() if key in settings}
