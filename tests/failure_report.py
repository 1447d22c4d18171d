"""The logs of a failed test's stack: saved to files, and named in the test's report with their last errors."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ops.clients.airflow import instance_name
from tests.stack import Airflow, Stack

TITLE = "logs of the stack during this test"
SECONDS = 60.0
"""The time limit for reading all logs; logs not read by then are left out."""
LOG_SECONDS = 10.0
LOG_LINES = 20_000
"""The newest lines of a container that are saved."""
TASKS = 20
SHOWN_LOGS = 12
SHOWN_LINES = 5
WIDTH = 300

FAILED_STATES = ("failed", "up_for_retry")
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\S+Z ")
"""The timestamp that Docker adds to each line."""
ERROR = re.compile(
    r"\[(error|critical)\s*\]"  # Airflow
    r"|\blevel=\"?(error|fatal|panic)"  # Prometheus, Alertmanager and the exporters
    r"|\t(error|fatal|panic)\t"  # the OpenTelemetry Collector
    r"|\b(ERROR|CRITICAL|FATAL|PANIC|ALERT|EMERG)\b"  # Postgres, Python's logging, HAProxy
)
TRACEBACK = "Traceback (most recent call last)"


@dataclass(frozen=True)
class Log:
    """A saved log.

    Attributes:
        source: The container or task that wrote it.
        file: The name of its file.
        errors: Its error lines.
    """

    source: str
    file: str
    errors: list[str]


STARTED = pytest.StashKey[float]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add a section to the report of a failed test that has a stack."""
    report = yield
    started = item.stash.setdefault(STARTED, call.start)
    stack = getattr(item, "funcargs", {}).get("stack")
    if report.failed and isinstance(stack, Stack):
        report.sections.append((TITLE, explanation(stack, item.nodeid, started)))
    return report


def explanation(stack: Stack, what: str, since: float) -> str:
    """Save the logs since a time, and return which of them contain errors; never raise.

    Args:
        stack: The stack.
        what: The name of what failed; the folder of the logs is named after it.
        since: Seconds since the epoch.
    """
    folder = stack.reports / file_name(what.rpartition("/")[2])
    shutil.rmtree(folder, ignore_errors=True)  # left by an earlier session, or by an earlier phase of the test
    deadline = time.monotonic() + SECONDS
    problems: list[str] = []
    saved: list[Log] = []
    for save_logs in (task_logs, container_logs):
        try:
            for log in save_logs(stack, folder, since):
                saved.append(log)
                if time.monotonic() > deadline:
                    problems.append(f"logs may be missing: not all were read in {SECONDS:.0f} s")
                    break
        except Exception as error:
            problems.append(f"cannot read all logs: {error!r}"[:WIDTH])
    return "\n".join([*section(saved, stack.project.shown(folder)), *dict.fromkeys(problems)])


def task_logs(stack: Stack, folder: Path, since: float) -> Iterable[Log]:
    """Save Airflow's logs of the tries that failed since a time."""
    for ti in failed_tasks(stack.api, since):
        key = (ti["dag_id"], ti["dag_run_id"], ti["task_id"], ti["try_number"])
        lines = entries(json.loads(stack.api.log(*key, map_index=ti["map_index"])))
        name = f"task {ti['dag_id']}.{instance_name(ti)}, try {ti['try_number']} of {ti['dag_run_id']}"
        yield save(name, folder / f"{file_name(name)}.log", "\n".join(lines))


def failed_tasks(api: Airflow, since: float) -> list[dict[str, Any]]:
    """Return the task instances whose last try failed since a time, the newest first."""
    instances: list[dict[str, Any]] = api.get(
        "/dags/~/dagRuns/~/taskInstances",
        state=FAILED_STATES,
        end_date_gte=datetime.fromtimestamp(since, UTC).isoformat(),
        order_by="-end_date",
        limit=TASKS,
    )["task_instances"]
    return instances


def container_logs(stack: Stack, folder: Path, since: float) -> Iterable[Log]:
    """Save the log of each container since a time, unless it is empty."""
    for container in stack.containers(include_exited=True):
        command = ["docker", "logs", "--timestamps", f"--since={since:.3f}", f"--tail={LOG_LINES}", container.id]
        text = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=LOG_SECONDS,
            check=False,
        ).stdout
        if text:
            yield save(container.service, folder / f"{container.service}-{container.id[:12]}.log", text)


def save(source: str, file: Path, text: str) -> Log:
    """Write a log to its file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return Log(source, file.name, errors(text.splitlines()))


def errors(lines: Iterable[str]) -> list[str]:
    """Return the error lines; of a traceback, the line with the exception."""
    error_lines = []
    in_traceback = False
    for line in lines:
        message = STAMP.sub("", line, count=1)
        if TRACEBACK in message:
            in_traceback = True
        elif in_traceback and (not message or message[0].isspace()):
            continue
        elif in_traceback or ERROR.search(message):
            in_traceback = False
            error_lines.append(line)
    return error_lines


def entries(answer: Mapping[str, Any]) -> list[str]:
    """Return a task's log from the API's answer as lines, exceptions as Python prints them."""
    lines = []
    for entry in answer["content"]:
        if isinstance(entry, str):
            lines.append(entry)
            continue
        stamp, level = entry.get("timestamp") or "", entry.get("level") or "info"
        lines.append(f"{stamp} [{level}] {entry['event']}".strip())
        for raised in entry.get("error_detail") or []:
            lines.append(f"{TRACEBACK}:")
            lines += [f'  File "{at["filename"]}", line {at["lineno"]}, in {at["name"]}' for at in raised["frames"]]
            lines.append(f"{raised['exc_type']}: {raised['exc_value']}")
    return lines


def section(saved: list[Log], folder: str) -> list[str]:
    """Return the lines of the report: each log with errors and its last error lines.

    Args:
        saved: The logs, in the order of the report.
        folder: The folder of their files.
    """
    with_errors = [log for log in saved if log.errors]
    lines = []
    for number, log in enumerate(with_errors):
        lines.append(f"{log.source}: errors ({len(log.errors)}) in {folder}/{log.file}")
        if number < SHOWN_LOGS:
            lines += [f"    {line[:WIDTH]}" for line in log.errors[-SHOWN_LINES:]]
    if without_errors := len(saved) - len(with_errors):
        lines.append(f"no error in {without_errors} more logs in {folder}/")
    return lines or ["no logs"]


def file_name(text: str) -> str:
    """Return a text as a file name that is valid on every file system and in CI artifacts."""
    name = re.sub(r"[^A-Za-z0-9.=-]+", "_", text).strip("_.")
    return name if len(name) <= 120 else f"{name[:110]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
