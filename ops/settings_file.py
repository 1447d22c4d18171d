"""compose/.env: the decisions of `up` and the operator's settings, read and checked before anything is changed."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from airflow_ha.patches import registry
from airflow_ha.sizes import MIB
from ops import compose_override, container_limits
from ops.atomic_file import write_atomically
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
# Written by `./ops/stack up`, which keeps your changes: a value in this file wins over its default. `docker compose
# up -d` in this folder reads it too. Every `up` rewrites the images. README.md describes every setting.
"""
PORTS = (*(published.port for published in PUBLISHED), "POSTGRES_PORT", "REDIS_PORT")
HOSTS = ("POSTGRES_HOST", "REDIS_HOST")
MAX_SLOTS = 64
"""Slots of one worker; for more slots, add workers."""
SIZES = {"TASK_MEMORY_LIMIT": 512 * MIB, "TASK_SCRATCH_LIMIT": MIB, "TASK_DISK_RESERVE": MIB}
"""Optional sizes with their minimum: the memory and scratch space of a task's process before it does any work."""
TASK_PIDS = (32, 1_000_000)
"""The lowest and highest TASK_PIDS_LIMIT; optional."""
SUSPENSION_SECONDS = (10, 600)
"""The shortest and longest suspension: the task's token expires after about 660 s (compose/airflow.yaml)."""
ADDRESSES = ("AIRFLOW_URL", "GRAFANA_URL", "RUNBOOK_BASE_URL")
"""The bases of the links in messages; optional: by default derived from BIND_ADDRESS and the ports."""
TRUSTED_PROXIES = "TRUSTED_PROXIES"
PUBLIC_HOSTS = "PUBLIC_HOSTS"
LOG_IN_FAILURES = (3, 1000)
SESSION_MINUTES = (5, 43200)
REQUEST_LIMITS = ("XCOM_LIMIT", "REQUEST_LIMIT")
"""The largest request bodies that the gateway accepts; optional, with defaults in compose/airflow.yaml."""
REQUEST_LIMIT_BYTES = (100_000, 50_000_000)
"""The smallest limit still admits Airflow's own requests; above the largest the servers run out of memory."""

ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")
# The syntax of docker compose: quoted, or unquoted up to a comment. https://docs.docker.com/compose/how-tos/environment-variables/
VALUE = re.compile(r"""'(?P<single>[^']*)'\s*(#.*)?|"(?P<double>[^"]*)"\s*(#.*)?|(?P<plain>[^'"#]?.*?)(\s+#.*)?""")
ADDRESS = re.compile(r"https?://[^\s/<>|{}\"][^\s<>|{}\"]*")
DEFAULT_QUEUE = "default"
QUEUES = re.compile(r"[A-Za-z0-9_.-]+(,[A-Za-z0-9_.-]+)*")
FACTOR = re.compile(r"\d{1,2}(\.\d+)?", re.ASCII)
HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")


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
        StackError: .env cannot be read, a line is not KEY=VALUE, or a value is not valid.
    """
    shown = project.shown(project.env_file)
    numbered = entries(project.env_file, shown)
    settings = defaults(project) | {key: value for _, key, value in numbered}
    lines = {key: number for number, key, _ in numbered}
    check(settings, shown, lines)
    if refused := container_limits.check_values(settings, container_limits.defaults(project.compose_directory)):
        raise refusal(settings, shown, lines, *refused)
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


def check(settings: Mapping[str, str], shown: str, lines: Mapping[str, int] | None = None) -> None:
    """Refuse a value that is not valid.

    Args:
        settings: The settings to check.
        shown: The path of the file, for messages.
        lines: The line number of each key in the file.

    Raises:
        StackError: A value is not valid; the error names the key, its line and the valid values.
    """
    checks = (refused_topology, refused_address, refused_access, refused_scheduling, refused_task_limit, check_patches)
    for find_refusal in checks:
        if refused := find_refusal(settings):
            raise refusal(settings, shown, lines, *refused)
    check_profiles(profiles(settings), shown)


def refused_topology(settings: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the first invalid port, replica count or project name, and its valid values; None if all are valid."""
    for key in PORTS:
        if not is_integer(settings[key], 1, 65535):
            return key, "a port, 1 to 65535"
    for key in settings:
        if key.endswith("_REPLICAS") and not is_integer(settings[key], 1, MAX_INSTANCES):
            return key, f"a number of instances, 1 to {MAX_INSTANCES}"
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", settings["COMPOSE_PROJECT_NAME"]):
        return "COMPOSE_PROJECT_NAME", "lower-case letters, digits, dashes and underscores"
    return None


def refused_address(settings: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the first invalid address or request limit, and its valid values; None if all are valid."""
    try:
        ipaddress.ip_address(settings["BIND_ADDRESS"])
    except ValueError:
        return "BIND_ADDRESS", "an IP address, such as 127.0.0.1 or 0.0.0.0"
    for key in HOSTS:
        if not HOST.fullmatch(settings[key]):
            return key, "a host name or an IP address, in [brackets] for IPv6"
    for key in REQUEST_LIMITS:
        if settings.get(key) and not is_request_limit(settings[key]):
            return key, "a size from 100k to 50m, such as 4m (k is 1000 bytes, m a million)"
    for key in ADDRESSES:
        if settings.get(key) and not ADDRESS.fullmatch(settings[key]):
            return key, "an address that begins with https:// or http://"
    return None


def refused_access(settings: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the first invalid setting of proxies, names or log-ins, and its valid values; None if all are valid."""
    for proxy in settings.get(TRUSTED_PROXIES, "").split(" "):
        try:
            ipaddress.ip_network(proxy or "::1", strict=False)
        except ValueError:
            return TRUSTED_PROXIES, "addresses or networks, separated by spaces, such as 192.0.2.7 or 10.0.0.0/8"
    if not all(HOST.fullmatch(host) for host in settings.get(PUBLIC_HOSTS, "").split()):
        return PUBLIC_HOSTS, "host names without ports, separated by spaces, such as airflow.example.com"
    if not is_integer(settings.get("LOG_IN_FAILURES") or "10", *LOG_IN_FAILURES):
        return "LOG_IN_FAILURES", "a number of failed log-ins, 3 to 1000"
    if not is_integer(settings.get("SESSION_MINUTES") or "1440", *SESSION_MINUTES):
        return "SESSION_MINUTES", "a number of minutes, 5 to 43200"
    if settings.get("API_DOCS", "on") not in ("on", "off", ""):
        return "API_DOCS", "on or off"
    return None


def refused_scheduling(settings: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the first invalid setting of queues, slots or schedulers, and its valid values; None if all are valid."""
    if not QUEUES.fullmatch(settings["WORKER_QUEUES"]) or DEFAULT_QUEUE not in settings["WORKER_QUEUES"].split(","):
        return (
            "WORKER_QUEUES",
            f"names separated by commas, without spaces, with {DEFAULT_QUEUE!r} among them for tasks that set no queue",
        )
    if settings.get("PARALLELISM") and not re.fullmatch(r"[1-9]\d{0,5}", settings["PARALLELISM"]):
        return "PARALLELISM", "a number of tasks, 1 or more"
    if settings.get("SCHEDULER_REST_FACTOR") and not FACTOR.fullmatch(settings["SCHEDULER_REST_FACTOR"]):
        return "SCHEDULER_REST_FACTOR", "a number from 0 to 99, such as 1.5"
    if settings.get("FLOWER_READ_ONLY", "") not in ("true", "false", ""):
        return "FLOWER_READ_ONLY", "true or false"
    if not is_integer(settings.get("WORKER_CONCURRENCY") or "1", 1, MAX_SLOTS):
        return "WORKER_CONCURRENCY", f"how many tasks a worker runs at once, 1 to {MAX_SLOTS}"
    return None


def refused_task_limit(settings: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the first invalid limit of a task, and its valid values; None if all are valid."""
    for key, minimum in SIZES.items():
        if settings.get(key) and (container_limits.size(settings[key]) or 0) < minimum:
            return key, f"a size such as 2g or 1500m, of at least {minimum >> 20}m"
    fewest, most = TASK_PIDS
    if not is_integer(settings.get("TASK_PIDS_LIMIT") or str(most), fewest, most):
        return "TASK_PIDS_LIMIT", f"how many processes and threads a task may have, {fewest} or more"
    if settings.get("TASK_SUSPENSION", "on") not in ("on", "off", ""):
        return "TASK_SUSPENSION", "on or off"
    shortest, longest = SUSPENSION_SECONDS
    if not is_integer(settings.get("TASK_SUSPENSION_LIMIT") or str(longest), shortest, longest):
        return "TASK_SUSPENSION_LIMIT", f"for how long a task may be suspended, {shortest} to {longest} seconds"
    return None


def refusal(
    settings: Mapping[str, str], shown: str, lines: Mapping[str, int] | None, key: str, takes: str
) -> StackError:
    """Return the error of a value that is not valid, with its line in .env if it has one."""
    where = f"{shown}, line {lines[key]}" if lines and key in lines else shown
    return StackError(
        f"cannot use {key}={settings[key]}: the value is not valid", where=where, hint=f"set {key} to {takes}"
    )


def is_integer(text: str, minimum: int, maximum: int) -> bool:
    """Return whether a text is a decimal number within the bounds."""
    return text.isdecimal() and minimum <= int(text) <= maximum


def is_request_limit(text: str) -> bool:
    """Return whether a text is a size within REQUEST_LIMIT_BYTES, in the gateway's syntax."""
    parts = re.fullmatch(r"(\d{1,9})([km]?)", text, re.ASCII)
    if parts is None:
        return False
    smallest, largest = REQUEST_LIMIT_BYTES
    return smallest <= int(parts[1]) * {"": 1, "k": 1_000, "m": 1_000_000}[parts[2]] <= largest


def profiles(settings: Mapping[str, str]) -> list[str]:
    """Return the profiles that the operator chose, without those that `up` adds."""
    added = (*(published.profile for published in OPTIONAL), SLACK_STUB_PROFILE)
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


def check_patches(settings: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the patch setting that is not valid, and its valid values; None if both are valid."""
    patches, disabled = settings.get("PATCHES", ""), settings.get("PATCHES_DISABLED", "")
    for key, values in (("PATCHES", (patches, "")), ("PATCHES_DISABLED", ("", disabled))):
        try:
            registry.validate(*values)
        except ValueError as error:
            return key, str(error).partition("; ")[2].replace("valid values are", "one of").replace(
                "known patches are", "names of"
            )
    return None
