"""The support bundle: logs, states, settings, versions, status, findings and alerts in one archive without secrets."""

from __future__ import annotations

import io
import json
import os
import platform
import subprocess
import tarfile
import time
import tomllib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ops import compose, preflight, settings_file, status
from ops.clients import prometheus
from ops.doctor.diagnosis import diagnose
from ops.errors import FAILURE, StackError
from ops.project import version
from ops.support import known_secrets
from ops.support.redaction import REMOVED, Redactor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from ops.project import Project

LOG_BYTES: Final = 1_000_000
"""The last part of each container's log."""
COMMAND_SECONDS: Final = 60.0
PACKAGES: Final = ("apache-airflow", "apache-airflow-providers-celery", "celery", "kombu", "redis", "sqlalchemy")
IMPORT_ERROR: Final = "does not import"
"""The state of a finding whose value is the text of an exception."""


class Member(NamedTuple):
    """A file of the archive."""

    name: str
    text: str


class Collected(NamedTuple):
    """The archive's files, and what was left out with the reason."""

    members: list[Member]
    left_out: dict[str, str]


def collect(project: Project, tail: int, report: Callable[[str], None]) -> Collected:
    """Return the files of the archive, without any secret.

    While the secrets in Connections and Variables are not known, logs, alerts and exceptions are left out: they may
    contain one.

    Args:
        project: The stack.
        tail: The number of last lines of each log.
        report: Prints a line of progress.

    Raises:
        StackError: The secrets in the secret files or in .env are not known.
    """
    secrets = known_secrets.in_files(project)
    shown, hidden = known_secrets.shown_settings(project)
    left_out: dict[str, str] = {}
    containers = list_containers(project, left_out)
    secrets |= hidden | known_secrets.in_containers(containers)
    free_text = True
    if containers:
        try:
            instances = compose.instances(settings_file.read(project)["COMPOSE_PROJECT_NAME"])
            secrets |= known_secrets.stored(instances) | known_secrets.in_compose(project)
        except StackError as error:
            left_out["logs, alerts, import errors of DAG files"] = error.what
            free_text = False
    redactor = Redactor(secrets)
    report(f"{len(secrets)} secret values are known and removed")
    members = [
        json_member("settings", shown),
        json_member("versions", versions(project)),
        json_member("containers", [summary(container) for container in containers]),
    ]
    report("checking the stack: doctor and status")
    members += states(project, left_out, free_text=free_text)
    if free_text:
        members += alerts(project, left_out)
        report(f"reading {len(containers)} logs")
        members += [log(container, tail, redactor) for container in containers]
    members.append(Member("README.txt", introduction(left_out)))
    return Collected([clean(member, redactor) for member in members], left_out)


def list_containers(project: Project, left_out: dict[str, str]) -> list[dict[str, Any]]:
    """Return what `docker inspect` prints of the stack's containers; empty while Docker does not answer."""
    try:
        preflight.check_docker()
        name = settings_file.read(project)["COMPOSE_PROJECT_NAME"]
        label = f"--filter=label=com.docker.compose.project={name}"
        return compose.inspect(compose.docker("ps", "--all", "--quiet", "--no-trunc", label).split())
    except StackError as error:
        left_out["containers and logs"] = error.what
        return []


def summary(container: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of a container: no value of a variable, no command line."""
    state, host, config = container["State"], container["HostConfig"], container["Config"]
    return {
        "name": container.get("Name", "").lstrip("/"),
        "id": container["Id"][:12],
        "created": container["Created"],
        "image": config.get("Image"),
        "image_id": container.get("Image"),
        "state": {key: value for key, value in state.items() if key != "Health"},
        "health": {
            "status": state.get("Health", {}).get("Status"),
            "last": [
                {"exit_code": check.get("ExitCode"), "output": check.get("Output", "")}
                for check in (state.get("Health", {}).get("Log") or [])[-3:]
            ],
        },
        "restarts": container.get("RestartCount"),
        "limits": {key: host.get(key) for key in ("Memory", "PidsLimit", "CpuShares")},
        "variables": sorted(entry.partition("=")[0] for entry in config.get("Env") or []),
        "mounts": [
            {key: mount.get(key) for key in ("Type", "Name", "Destination", "RW")}
            for mount in container.get("Mounts", [])
        ],
        "networks": sorted(container.get("NetworkSettings", {}).get("Networks") or {}),
    }


def states(project: Project, left_out: dict[str, str], *, free_text: bool) -> Iterator[Member]:
    """Yield the output of `doctor` and `status`, without the text of exceptions unless `free_text`."""
    diagnosis = asdict(diagnose(project))
    if not free_text:
        for finding in diagnosis["findings"]:
            finding["value"] = REMOVED if finding["state"] == IMPORT_ERROR else finding["value"]
    yield json_member("doctor", diagnosis)
    try:
        now = status.collect(project)
    except (StackError, OSError) as error:
        left_out["status"] = str(error)
        return
    if not free_text:
        now["dags"] = None
    yield json_member("status", now)


def alerts(project: Project, left_out: dict[str, str]) -> Iterator[Member]:
    """Yield Prometheus' active alerts: their labels, and whether each fires or is pending."""
    try:
        series = prometheus.connect(settings_file.read(project)).query("ALERTS")
        yield json_member("alerts", [each["metric"] for each in series])
    except StackError as error:
        left_out["alerts"] = error.what


def log(container: Mapping[str, Any], tail: int, redactor: Redactor) -> Member:
    """Return the last part of a container's log, from the start of a line.

    Secrets are removed before the log is cut: the end of a cut secret is not known.
    """
    name = container.get("Name", container["Id"][:12]).lstrip("/")
    command = ["docker", "logs", "--timestamps", f"--tail={tail}", container["Id"]]
    try:
        result = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=COMMAND_SECONDS
        )
        text = redactor.redact(result.stdout.decode(errors="replace"))
    except subprocess.TimeoutExpired:
        text = "docker logs did not answer\n"
    if len(text) > LOG_BYTES:
        text = text[-LOG_BYTES:].partition("\n")[2]
    return Member(f"logs/{name}.log", text)


def versions(project: Project) -> dict[str, Any]:
    """Return the versions of the project, the host, Docker and the main packages."""
    locked = tomllib.loads((project.root / "uv.lock").read_text(encoding="utf-8"))["package"]
    return {
        "airflow-ha": version(project.root),
        "commit": output("git", "-C", str(project.root), "describe", "--always", "--dirty", "--abbrev=12"),
        "host": {"system": platform.platform(), "processors": os.cpu_count(), "python": platform.python_version()},
        "docker": output("docker", "version", "--format", "{{.Client.Version}} {{.Server.Version}}"),
        "compose": output("docker", "compose", "version", "--short"),
        "packages": {package["name"]: package["version"] for package in locked if package["name"] in PACKAGES},
    }


def output(*command: str) -> str:
    """Return what a command prints; "unknown" if it fails."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=COMMAND_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return result.stdout.strip()


def json_member(name: str, content: Any) -> Member:
    """Return a file with a JSON value."""
    return Member(f"{name}.json", json.dumps(content, indent=2))


def introduction(left_out: Mapping[str, str]) -> str:
    """Return the text that explains the archive."""
    rows = [f"  {name}: {reason}" for name, reason in left_out.items()] or ["  nothing"]
    return "\n".join(
        [
            f"Support bundle of Airflow HA, {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime())}.",
            "Begin with doctor.json: what needs an operator, the most urgent first.",
            *(["logs/ has the last lines of each container."] if not any("logs" in name for name in left_out) else []),
            f"{REMOVED}: a secret, or a text that resembles one. Logs of tasks are not included.",
            "Left out:",
            *rows,
            "",
        ]
    )


def clean(member: Member, redactor: Redactor) -> Member:
    """Return a file without secrets.

    Raises:
        StackError: A known secret is still in it.
    """
    if member.name.endswith(".json"):
        text = json.dumps(redactor.redact_tree(json.loads(member.text)), indent=2, ensure_ascii=False)
    else:
        text = redactor.redact(member.text)
    if not redactor.is_clean(text) or not redactor.is_clean(member.name):
        raise StackError(
            f"cannot write the bundle: a secret is still in {redactor.redact(member.name)}",
            hint="report this as a fault of the project",
            code=FAILURE,
        )
    return Member(member.name, text)


def write(path: Path, members: list[Member]) -> None:
    """Write the archive, readable by this user only.

    Raises:
        StackError: The file exists, or this user cannot write there.
    """
    folder = path.name.removesuffix(".tar.gz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            for member in members:
                data = member.text.encode()
                entry = tarfile.TarInfo(f"{folder}/{member.name}")
                entry.size, entry.mtime, entry.mode = len(data), int(time.time()), 0o600
                archive.addfile(entry, io.BytesIO(data))
    except OSError as error:
        raise StackError(
            f"cannot write the bundle: {error.strerror}", where=str(path), hint="choose another --output"
        ) from error
