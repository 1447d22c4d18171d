"""Which logs explain a failed test: each is kept in a file, and the test's report names it with its last errors."""

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
"""For all of it: what is not read by then is left out."""
LOG_SECONDS = 10.0
LOG_LINES = 20_000
"""The newest of a container are kept."""
TASKS = 20
SHOWN_LOGS = 12
SHOWN_LINES = 5
WIDTH = 300

ENDED_BADLY = ("failed", "up_for_retry")
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\S+Z ")
"""What Docker puts before each line."""
ERROR = re.compile(
    r"\[(error|critical)\s*\]"  # Airflow
    r"|\blevel=\"?(error|fatal|panic)"  # Prometheus and what is built like it
    r"|\t(error|fatal|panic)\t"  # the collector
    r"|\b(ERROR|CRITICAL|FATAL|PANIC|ALERT|EMERG)\b"  # Postgres, Python's logging, HAProxy
)
TRACEBACK = "Traceback (most recent call last)"


@dataclass(frozen=True)
class Log:
    """A log that was kept.

    Attributes:
        of: Whose.
        file: Its name.
        errors: Its lines that tell of one.
    """

    of: str
    file: str
    errors: list[str]


STARTED = pytest.StashKey[float]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds a section to the report of a failed test that had a stack."""
    report = yield
    started = item.stash.setdefault(STARTED, call.start)
    stack = getattr(item, "funcargs", {}).get("stack")
    if report.failed and isinstance(stack, Stack):
        report.sections.append((TITLE, explanation(stack, item.nodeid, started)))
    return report


def explanation(stack: Stack, what: str, since: float) -> str:
    """Keeps the logs since a moment, and says which of them tell of errors; never raises.

    Args:
        stack: The stack.
        what: What failed; the folder of the logs is named after it.
        since: Seconds since the epoch.
    """
    folder = stack.reports / file_name(what.rpartition("/")[2])
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier session, or of an earlier phase of the same test
    deadline = time.monotonic() + SECONDS
    said: list[str] = []
    kept: list[Log] = []
    for keep in (task_logs, container_logs):
        try:
            for log in keep(stack, folder, since):
                kept.append(log)
                if time.monotonic() > deadline:
                    said.append(f"there may be more: not all was read in {SECONDS:.0f} s")
                    break
        except Exception as error:
            said.append(f"not all could be read: {error!r}"[:WIDTH])
    return "\n".join([*section(kept, stack.project.shown(folder)), *dict.fromkeys(said)])


def task_logs(stack: Stack, folder: Path, since: float) -> Iterable[Log]:
    """The logs of the task attempts that ended badly since a moment, as Airflow has them."""
    for ti in failed_tasks(stack.api, since):
        place = (ti["dag_id"], ti["dag_run_id"], ti["task_id"], ti["try_number"])
        lines = entries(json.loads(stack.api.log(*place, map_index=ti["map_index"])))
        name = f"task {ti['dag_id']}.{instance_name(ti)}, try {ti['try_number']} of {ti['dag_run_id']}"
        yield keep(name, folder / f"{file_name(name)}.log", "\n".join(lines))


def failed_tasks(api: Airflow, since: float) -> list[dict[str, Any]]:
    """The task instances whose last attempt ended badly since a moment, the newest first."""
    found: list[dict[str, Any]] = api.get(
        "/dags/~/dagRuns/~/taskInstances",
        state=ENDED_BADLY,
        end_date_gte=datetime.fromtimestamp(since, UTC).isoformat(),
        order_by="-end_date",
        limit=TASKS,
    )["task_instances"]
    return found


def container_logs(stack: Stack, folder: Path, since: float) -> Iterable[Log]:
    """What each container said since a moment, if it said anything."""
    for container in stack.containers(include_exited=True):
        command = ["docker", "logs", "--timestamps", f"--since={since:.3f}", f"--tail={LOG_LINES}", container.id]
        said = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=LOG_SECONDS,
            check=False,
        ).stdout
        if said:
            yield keep(container.service, folder / f"{container.service}-{container.id[:12]}.log", said)


def keep(of: str, file: Path, text: str) -> Log:
    """Writes a log to its file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return Log(of, file.name, errors(text.splitlines()))


def errors(lines: Iterable[str]) -> list[str]:
    """The lines that tell of an error; of a traceback the one that says what was raised."""
    found = []
    in_traceback = False
    for line in lines:
        said = STAMP.sub("", line, count=1)
        if TRACEBACK in said:
            in_traceback = True
        elif in_traceback and (not said or said[0].isspace()):
            continue
        elif in_traceback or ERROR.search(said):
            in_traceback = False
            found.append(line)
    return found


def entries(answer: Mapping[str, Any]) -> list[str]:
    """A task's log as lines, out of the API's answer; an exception as Python would show it."""
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


def section(kept: list[Log], folder: str) -> list[str]:
    """What people read: each log with errors and its last ones, the tasks' before the containers'.

    Args:
        kept: The logs.
        folder: Where they are.
    """
    telling = [log for log in kept if log.errors]
    lines = []
    for number, log in enumerate(telling):
        lines.append(f"{log.of}: errors ({len(log.errors)}) in {folder}/{log.file}")
        if number < SHOWN_LOGS:
            lines += [f"    {line[:WIDTH]}" for line in log.errors[-SHOWN_LINES:]]
    if silent := len(kept) - len(telling):
        lines.append(f"no error in {silent} more logs in {folder}/")
    return lines or ["nothing was logged"]


def file_name(text: str) -> str:
    """A text as the name of a file, wherever that may be kept."""
    name = re.sub(r"[^A-Za-z0-9.=-]+", "_", text).strip("_.")
    return name if len(name) <= 120 else f"{name[:110]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
