"""compose/.env: what `up` decided and what the operator set. Read whole and checked before anything is changed."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from airflow_ha.patches import registry
from ops import compose_override, container_limits
from ops.errors import FAILURE, StackError
from ops.services import (
    DATA_PROFILES,
    DEFAULT_PROFILES,
    MAX_INSTANCES,
    OPTIONAL,
    PROFILES,
    PUBLISHED,
    SCALABLE,
    SLACK_STUB_PROFILE,
    replicas_variable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ops.project import Project

HEADER = """\
# Written by `./ops/stack up`; yours to edit, and kept: what is set here wins. `docker compose up -d` in this folder
# reads it too. Images are set anew by every `up`.
"""
PORTS = (*(published.port for published in PUBLISHED), "POSTGRES_PORT", "REDIS_PORT")
HOSTS = ("POSTGRES_HOST", "REDIS_HOST")
MAX_SLOTS = 64
"""Slots of one worker; whoever needs more runs more workers."""
SIZES = {"TASK_MEMORY_LIMIT": 512 << 20, "TASK_SCRATCH_LIMIT": 1 << 20}
"""Optional sizes, and the least that each takes: a task's process has that much before it does anything."""
SUSPENSION_SECONDS = (10, 600)
"""A suspended task asks every second or few; its token is refused from some 660 s on (compose/airflow.yaml)."""
ADDRESSES = ("AIRFLOW_URL", "GRAFANA_URL", "RUNBOOK_BASE_URL")
"""What links in messages begin with; optional: unless set, they follow from BIND_ADDRESS and the ports."""
REQUEST_LIMITS = ("XCOM_LIMIT", "REQUEST_LIMIT")
"""The largest bodies that the gateway passes on; optional, with their defaults in compose/airflow.yaml."""
REQUEST_LIMIT_BYTES = (100_000, 50_000_000)
"""The least leaves room for what Airflow itself sends; above the greatest the servers' memory does not suffice."""

ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")
# As docker compose reads it: quoted, or up to a comment. https://docs.docker.com/compose/how-tos/environment-variables/
VALUE = re.compile(r"""'(?P<single>[^']*)'\s*(#.*)?|"(?P<double>[^"]*)"\s*(#.*)?|(?P<plain>[^'"#]?.*?)(\s+#.*)?""")
ADDRESS = re.compile(r"https?://[^\s/<>|{}\"][^\s<>|{}\"]*")
DEFAULT_QUEUE = "default"
QUEUES = re.compile(r"[A-Za-z0-9_.-]+(,[A-Za-z0-9_.-]+)*")
FACTOR = re.compile(r"\d{1,2}(\.\d+)?", re.ASCII)
HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")


def defaults(project: Project) -> dict[str, str]:
    """The settings of a first `up`, in the order in which they are written."""
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
    """The settings: those of .env over the defaults.

    Raises:
        StackError: .env cannot be read, a line is not KEY=VALUE, or a value is not of its kind.
    """
    shown = project.shown(project.env_file)
    found = entries(project.env_file, shown)
    settings = defaults(project) | {key: value for _, key, value in found}
    lines = {key: number for number, key, _ in found}
    check(settings, shown, lines)
    if refused := container_limits.check_values(settings, container_limits.defaults(project.compose_directory)):
        raise refusal(settings, shown, lines, *refused)
    return settings


def parse(path: Path, shown: str) -> dict[str, str]:
    """The settings of an .env file; empty when there is none."""
    return {key: value for _, key, value in entries(path, shown)}


def entries(path: Path, shown: str) -> list[tuple[int, str, str]]:
    """The settings of an .env file with their line numbers.

    Raises:
        StackError: It cannot be read, or a line is not KEY=VALUE.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise StackError(
            f"the settings cannot be read: {error}", where=shown, hint="make it a text file that you may read"
        ) from error
    found: list[tuple[int, str, str]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        setting = assignment(line)
        if setting is None:
            raise StackError(
                f"this line is not KEY=VALUE: {line.strip()[:60]}",
                where=f"{shown}, line {number}",
                hint="mend or delete the line; deleting the whole file brings back the defaults",
            )
        found.append((number, *setting))
    return found


def assignment(line: str) -> tuple[str, str] | None:
    """The key and value of a line; None when it is no assignment."""
    found = ASSIGNMENT.fullmatch(line.strip())
    value = VALUE.fullmatch(found[2].strip()) if found else None
    if not found or not value or (value["plain"] or "")[:1] in ("'", '"'):
        return None
    return found[1], next(text for text in (value["single"], value["double"], value["plain"]) if text is not None)


def check(settings: Mapping[str, str], shown: str, lines: Mapping[str, int] | None = None) -> None:
    """Refuses a value that is not of its kind.

    Args:
        settings: What is checked.
        shown: The file, as people would name it.
        lines: The line of each key in it.

    Raises:
        StackError: naming the key, its value, its line, and what it takes.
    """

    def refuse(key: str, takes: str) -> StackError:
        return refusal(settings, shown, lines, key, takes)

    for key in PORTS:
        if not (settings[key].isdecimal() and 0 < int(settings[key]) < 65536):
            raise refuse(key, "a port, 1 to 65535")
    for key in settings:
        if key.endswith("_REPLICAS") and not (settings[key].isdecimal() and 1 <= int(settings[key]) <= MAX_INSTANCES):
            raise refuse(key, f"a number of instances, 1 to {MAX_INSTANCES}")
    if not QUEUES.fullmatch(settings["WORKER_QUEUES"]) or DEFAULT_QUEUE not in settings["WORKER_QUEUES"].split(","):
        raise refuse(
            "WORKER_QUEUES",
            f"names separated by commas, without spaces, {DEFAULT_QUEUE!r} among them: tasks that name no queue run "
            "there",
        )
    if settings.get("PARALLELISM") and not re.fullmatch(r"[1-9]\d{0,5}", settings["PARALLELISM"]):
        raise refuse("PARALLELISM", "a number of tasks, 1 or more")
    if settings.get("SCHEDULER_REST_FACTOR") and not FACTOR.fullmatch(settings["SCHEDULER_REST_FACTOR"]):
        raise refuse("SCHEDULER_REST_FACTOR", "a number from 0 to 99, such as 1.5")
    try:
        ipaddress.ip_address(settings["BIND_ADDRESS"])
    except ValueError:
        raise refuse("BIND_ADDRESS", "an IP address, such as 127.0.0.1 or 0.0.0.0") from None
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", settings["COMPOSE_PROJECT_NAME"]):
        raise refuse("COMPOSE_PROJECT_NAME", "lower-case letters, digits, dashes and underscores")
    for key in HOSTS:
        if not HOST.fullmatch(settings[key]):
            raise refuse(key, "a host name or an IP address, in [brackets] for IPv6")
    for key in REQUEST_LIMITS:
        if settings.get(key) and not is_request_limit(settings[key]):
            raise refuse(key, "a size from 100k to 50m, such as 4m (k is 1000 bytes, m a million)")
    for key in ADDRESSES:
        if settings.get(key) and not ADDRESS.fullmatch(settings[key]):
            raise refuse(key, "an address that begins with https:// or http://")
    slots = settings.get("WORKER_CONCURRENCY") or "1"
    if not (slots.isdecimal() and 1 <= int(slots) <= MAX_SLOTS):
        raise refuse("WORKER_CONCURRENCY", f"how many tasks a worker runs at once, 1 to {MAX_SLOTS}")
    for key, least in SIZES.items():
        if settings.get(key) and (container_limits.size(settings[key]) or 0) < least:
            raise refuse(key, f"a size such as 2g or 1500m, of at least {least >> 20}m")
    if refused := check_patches(settings):
        raise refuse(*refused)
    if settings.get("TASK_SUSPENSION", "on") not in ("on", "off", ""):
        raise refuse("TASK_SUSPENSION", "on or off")
    least, most = SUSPENSION_SECONDS
    limit = settings.get("TASK_SUSPENSION_LIMIT") or str(most)
    if not (limit.isdecimal() and least <= int(limit) <= most):
        raise refuse("TASK_SUSPENSION_LIMIT", f"for how long a task may be suspended, {least} to {most} seconds")
    check_profiles(profiles(settings), shown)


def refusal(
    settings: Mapping[str, str], shown: str, lines: Mapping[str, int] | None, key: str, takes: str
) -> StackError:
    """The error for a value that is not of its kind, with its line where it is in .env."""
    where = f"{shown}, line {lines[key]}" if lines and key in lines else shown
    return StackError(f"{key}={settings[key]} is not valid", where=where, hint=f"{key} takes {takes}")


def is_request_limit(text: str) -> bool:
    """Return whether a text is a size within REQUEST_LIMIT_BYTES, as the gateway reads it."""
    parts = re.fullmatch(r"(\d{1,9})([km]?)", text, re.ASCII)
    if parts is None:
        return False
    least, most = REQUEST_LIMIT_BYTES
    return least <= int(parts[1]) * {"": 1, "k": 1_000, "m": 1_000_000}[parts[2]] <= most


def profiles(settings: Mapping[str, str]) -> list[str]:
    """The profiles that are on, as people choose them: without those that `up` adds by itself."""
    own = (*(published.profile for published in OPTIONAL), SLACK_STUB_PROFILE)
    return [name for name in settings["COMPOSE_PROFILES"].split(",") if name and name not in own]


def check_profiles(names: list[str], where: str) -> None:
    """Refuses a profile that does not exist, and two that exclude each other.

    Raises:
        StackError: naming the known ones, or the two.
    """
    for name in names:
        if name not in PROFILES:
            known = "; ".join(f"{profile}: {adds}" for profile, adds in PROFILES.items())
            raise StackError(f"unknown profile {name!r}", where=where, hint=f"the profiles are: {known}")
    if len(both := [name for name in DATA_PROFILES if name in names]) > 1:
        raise StackError(
            f"the profiles {' and '.join(both)} are one or the other: each has a Postgres and a Redis of its own",
            where=where,
            hint=f"name one of them, for instance --profile {both[-1]}",
        )


def write(project: Project, settings: Mapping[str, str]) -> bool:
    """Writes the settings; keeps the operator's comments and order, and each line that says the same already.

    Returns:
        Whether anything changed.

    Raises:
        StackError: This user may not write it.
    """
    path = project.env_file
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    lines: list[str] = []
    left = dict(settings)
    for line in (old or HEADER).splitlines():
        key, value = assignment(line) or ("", "")
        if key not in settings or value == settings[key]:
            lines.append(line)
        elif key in left:
            lines.append(f"{key}={settings[key]}")
        # Else the key stands twice: its first place has our value.
        left.pop(key, None)
    lines += [f"{key}={value}" for key, value in left.items()]
    text = "\n".join(lines) + "\n"
    if text == old:
        return False
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise StackError(
            f"the settings cannot be written: {error.strerror}",
            where=project.shown(path),
            hint="run this as who ran ./ops/stack up first",
            code=FAILURE,
        ) from error
    return True


def image_origins(settings: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Each image that .env names, and where it is from."""
    origins = dict(pair.split("=", 1) for pair in settings.get("STACK_IMAGES_ORIGIN", "").split(",") if "=" in pair)
    return {key: {"reference": settings[key], "origin": origin} for key, origin in origins.items() if key in settings}


def check_patches(settings: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the key in .env that is not valid and what it takes; None if both are."""
    patches, disabled = settings.get("PATCHES", ""), settings.get("PATCHES_DISABLED", "")
    for key, values in (("PATCHES", (patches, "")), ("PATCHES_DISABLED", ("", disabled))):
        try:
            registry.validate(*values)
        except ValueError as error:
            return key, str(error).partition("; ")[2].replace("valid values are", "one of").replace(
                "known patches are", "names of"
            )
    return None
