"""compose/.env: what `up` decided and what the operator set. Read whole and checked before anything is changed."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from ops.errors import StackError
from ops.project import DEFAULT_PROFILES, MAX_INSTANCES, PROFILES, SCALABLE, replicas_variable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ops.project import Project

HEADER = """\
# Written by `./ops/stack up`; yours to edit, and kept: what is set here wins. `docker compose up -d` in this folder
# reads it too. Images are set anew by every `up`.
"""
PORTS = ("AIRFLOW_PORT", "FLOWER_PORT", "POSTGRES_PORT", "REDIS_PORT")

ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")


def defaults(project: Project) -> dict[str, str]:
    """The settings of a first `up`, in the order in which they are written."""
    return {
        "COMPOSE_PROJECT_NAME": "airflow-ha",
        "COMPOSE_PROFILES": ",".join(DEFAULT_PROFILES),
        "SECRETS_DIR": "./secrets" if project.is_default else str(project.secrets),
        "BIND_ADDRESS": "127.0.0.1",
        "AIRFLOW_PORT": "8080",
        "FLOWER_PORT": "5555",
        "POSTGRES_HOST": "postgres",
        "POSTGRES_PORT": "5432",
        "REDIS_HOST": "redis",
        "REDIS_PORT": "6379",
        **{replicas_variable(service): "1" if service == "triggerer" else "2" for service in SCALABLE},
    }


def read(project: Project) -> dict[str, str]:
    """The settings: those of .env over the defaults.

    Raises:
        StackError: .env cannot be read, a line is not KEY=VALUE, or a value is not of its kind.
    """
    settings = defaults(project) | parse(project.env_file, project.shown(project.env_file))
    check(settings, project.shown(project.env_file))
    return settings


def parse(path: Path, shown: str) -> dict[str, str]:
    """The lines of an .env file; empty when there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise StackError(
            f"the settings cannot be read: {error}", where=shown, cure="make it a text file that you may read"
        ) from error
    settings: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = ASSIGNMENT.fullmatch(line.strip())
        if not found:
            raise StackError(
                f"this line is not KEY=VALUE: {line.strip()[:60]}",
                where=f"{shown}, line {number}",
                cure="mend or delete the line; deleting the whole file brings back the defaults",
            )
        value = found[2].strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        settings[found[1]] = value
    return settings


def check(settings: Mapping[str, str], shown: str) -> None:
    """Refuses a value that is not of its kind.

    Raises:
        StackError: naming the key, its value, and what it takes.
    """

    def refuse(key: str, takes: str) -> StackError:
        return StackError(f"{key}={settings[key]} is not valid", where=shown, cure=f"{key} takes {takes}")

    for key in PORTS:
        if not (settings[key].isdecimal() and 0 < int(settings[key]) < 65536):
            raise refuse(key, "a port, 1 to 65535")
    for service in SCALABLE:
        key = replicas_variable(service)
        if not (settings[key].isdecimal() and 1 <= int(settings[key]) <= MAX_INSTANCES):
            raise refuse(key, f"a number of instances, 1 to {MAX_INSTANCES}")
    try:
        ipaddress.ip_address(settings["BIND_ADDRESS"])
    except ValueError:
        raise refuse("BIND_ADDRESS", "an IP address, such as 127.0.0.1 or 0.0.0.0") from None
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", settings["COMPOSE_PROJECT_NAME"]):
        raise refuse("COMPOSE_PROJECT_NAME", "lower-case letters, digits, dashes and underscores")
    check_profiles(profiles(settings), shown)


def profiles(settings: Mapping[str, str]) -> list[str]:
    """The profiles that are on."""
    return [name for name in settings["COMPOSE_PROFILES"].split(",") if name]


def check_profiles(names: list[str], where: str) -> None:
    """Refuses a profile that does not exist.

    Raises:
        StackError: naming the known ones.
    """
    for name in names:
        if name not in PROFILES:
            known = "; ".join(f"{profile}: {adds}" for profile, adds in PROFILES.items())
            raise StackError(f"unknown profile {name!r}", where=where, cure=f"the profiles are: {known}")


def write(project: Project, settings: Mapping[str, str]) -> bool:
    """Writes the settings, keeping the operator's comments and order; returns whether anything changed."""
    path = project.env_file
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    lines: list[str] = []
    left = dict(settings)
    for line in (old or HEADER).splitlines():
        found = ASSIGNMENT.fullmatch(line.strip())
        if found and found[1] in settings:
            # A key that stands twice keeps its first place; docker compose reads the last value, which is ours.
            if found[1] in left:
                lines.append(f"{found[1]}={left.pop(found[1])}")
        else:
            lines.append(line)
    lines += [f"{key}={value}" for key, value in left.items()]
    text = "\n".join(lines) + "\n"
    if text == old:
        return False
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
    return True
