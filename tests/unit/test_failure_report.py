"""The report of a failed test names the logs that explain the failure."""

from __future__ import annotations

import os
import time
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from ops.project import ROOT
from tests import failure_report
from tests.failure_report import Log, entries, errors, file_name, section
from tests.stack import Airflow, Container, Stack

pytest_plugins = ["pytester"]

DOCKER = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/calls"
for last; do :; done
cat "$(dirname "$0")/$last" 2>&1
"""
TRACEBACK = [
    "2026-11-25T21:14:50.1Z Traceback (most recent call last):",
    '2026-11-25T21:14:50.2Z   File "server.py", line 488, in send_error',
    "2026-11-25T21:14:50.3Z     self.send_error(503)",
    "2026-11-25T21:14:50.4Z BrokenPipeError: [Errno 32] Broken pipe",
    "2026-11-25T21:14:51.0Z [info     ] and on it goes",
]
SCHEDULER, REDIS = "5" * 64, "7" * 64
FAILED_TASK = {"dag_id": "load", "dag_run_id": "manual__1", "task_id": "work", "map_index": 3, "try_number": 2}
TASK_LOG = {
    "content": [
        {"event": "::group::Log message source details"},
        {
            "timestamp": "2026-11-25T21:14:50Z",
            "level": "error",
            "event": "Task failed with exception",
            "error_detail": [
                {
                    "exc_type": "ValueError",
                    "exc_value": "10 samples",
                    "frames": [{"filename": "validation.py", "lineno": 7, "name": "validate"}],
                }
            ],
        },
    ]
}


class FakeStack(Stack):
    """Two containers, whose logs a fake `docker` prints."""

    def containers(self, service: str | None = None, *, include_exited: bool = False) -> list[Container]:
        return [Container(SCHEDULER, "scheduler", "running", {}), Container(REDIS, "redis", "exited", {})]


class Fixtures:
    """A pytest plugin with the fixture `stack` of the integration tests."""

    def __init__(self, stack: Stack):
        self.fake_stack = stack

    @pytest.fixture(scope="session")
    def stack(self) -> Stack:
        return self.fake_stack


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in PATH with a `docker` that prints the file named after the container."""
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "docker").write_text(DOCKER)
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    (folder / SCHEDULER).write_text("\n".join(TRACEBACK))
    (folder / REDIS).write_text("2026-11-25T21:14:50.1Z 8:M * Ready to accept connections tcp\n")
    return folder


def airflow(*failed: dict, requests: list[httpx.Request]) -> Airflow:
    """Return a client of an Airflow API with these failed task instances, which records its requests."""

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": "t"})
        if request.url.path.endswith("/logs/2"):
            return httpx.Response(200, json=TASK_LOG)
        return httpx.Response(200, json={"task_instances": list(failed), "total_entries": len(failed)})

    return Airflow("http://airflow", "admin", "p", transport=httpx.MockTransport(answer))


@pytest.fixture
def requests() -> list[httpx.Request]:
    """The requests to Airflow's API."""
    return []


@pytest.fixture
def stack(programs: Path, tmp_path: Path, requests: list[httpx.Request]) -> Stack:
    fake_stack = FakeStack(state=tmp_path, dags=tmp_path, reports=tmp_path / "reports")
    fake_stack.__dict__["api"] = airflow(FAILED_TASK, requests=requests)
    return fake_stack


def run(pytester: pytest.Pytester, stack: Stack, body: str) -> str:
    """Return the output of a session with one test."""
    pytester.makepyfile(test_made=f"def test_to_fail(stack):\n    {body}\n")
    return pytester.runpytest_inprocess(
        "-p", "no:cacheprovider", plugins=[failure_report, Fixtures(stack)]
    ).stdout.str()


def test_failed_test_reports_the_logs_that_explain_it(
    pytester: pytest.Pytester, stack: Stack, programs: Path, requests: list[httpx.Request]
):
    started = time.time()
    output = run(pytester, stack, "assert False, 'made to'")
    assert "made to" in output
    folder = stack.reports / "test_made.py_test_to_fail"
    scheduler = folder / f"scheduler-{SCHEDULER[:12]}.log"
    task = folder / "task_load.work_3_try_2_of_manual_1.log"
    lines = output.partition(f"- {failure_report.TITLE} -")[2].splitlines()[1:7]
    assert lines == [
        f"task load.work[3], try 2 of manual__1: errors (2) in {task}",
        "    2026-11-25T21:14:50Z [error] Task failed with exception",
        "    ValueError: 10 samples",
        f"scheduler: errors (1) in {scheduler}",
        f"    {TRACEBACK[3]}",
        f"no error in 1 more logs in {folder}/",
    ]
    assert scheduler.read_text().splitlines() == TRACEBACK
    assert "validation.py" in task.read_text()

    since = float((programs / "calls").read_text().partition("--since=")[2].split()[0])
    assert started - 0.001 <= since <= time.time(), "logs of this test, not of earlier tests"
    (query,) = [request.url.params for request in requests if request.url.path.endswith("/~/taskInstances")]
    assert query.get_list("state") == ["failed", "up_for_retry"]
    assert datetime.fromisoformat(query["end_date_gte"]).timestamp() == pytest.approx(since, abs=0.01)


def test_passed_test_reads_no_log(pytester: pytest.Pytester, stack: Stack, programs: Path):
    assert failure_report.TITLE not in run(pytester, stack, "pass")
    assert not (programs / "calls").exists()
    assert not stack.reports.exists()


def test_failed_test_without_a_stack_has_no_section(pytester: pytest.Pytester):
    pytester.makepyfile("def test_to_fail():\n    assert False")
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", plugins=[failure_report])
    result.assert_outcomes(failed=1)
    assert failure_report.TITLE not in result.stdout.str()


def test_dead_airflow_does_not_hide_the_containers_logs(pytester: pytest.Pytester, stack: Stack):
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    stack.api.http = httpx.Client(base_url="http://airflow", transport=httpx.MockTransport(refuse))
    output = run(pytester, stack, "assert False")
    assert "BrokenPipeError" in output
    assert "ConnectError('refused')" in output


def test_missing_docker_does_not_hide_the_failure(pytester, stack, monkeypatch, programs):
    monkeypatch.setenv("PATH", str(programs.parent / "empty"))
    output = run(pytester, stack, "assert False, 'made to'")
    assert "made to" in output
    assert "FileNotFoundError" in output


def test_time_limit_for_reading_logs_is_reported(stack: Stack, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(failure_report, "SECONDS", -1.0)
    assert "not all were read" in failure_report.explanation(stack, "bring-up", time.time())


def test_second_failure_of_a_test_replaces_its_logs(stack: Stack):
    old = stack.reports / "bring-up/worker-0.log"
    old.parent.mkdir(parents=True)
    old.write_text("of another day")
    failure_report.explanation(stack, "bring-up", time.time())
    assert not old.exists()
    assert list(old.parent.iterdir())


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-25T21:19:37.9Z [error    ] Heartbeat failed [supervisor] loc=supervisor.py:3287",
        "2026-11-25T21:19:37.9Z [critical ] no more",
        "2026-11-25 21:11:03.130 GMT [12] FATAL:  password authentication failed",
        "[ALERT]    (9) : backend 'execution-api' has no server available!",
        'time=2026-11-25T21:09:05Z level=ERROR source=main.go:510 msg="cannot"',
        'ts=2026-11-25T21:09:05Z level=error msg="cannot"',
        "2026-11-25T21:09:05.659Z\terror\tinternal/queue_sender.go:57\tExporting failed.",
        "2026-11-25 21:11:03,130 ERROR: Error communicating with DCS",
    ],
)
def test_error_line_of_each_program_is_detected(line: str):
    assert errors([line]) == [line]


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-25T21:16:01.4Z [info     ] request finished method=GET path=/api/v2/importErrors",
        'time=2026-11-25T21:09:05Z level=WARN msg="repeat_interval is less than group_interval"',
        "2026-11-25T21:09:05Z [info     ] Workload finished exit_code=0 errors=0",
        "8:M 25 Nov 2026 21:18:37.458 * Ready to accept connections tcp",
    ],
)
def test_line_without_an_error_is_not_detected(line: str):
    assert errors([line]) == []


def test_traceback_counts_as_its_exception_line():
    assert errors(TRACEBACK) == [TRACEBACK[3]]
    chained = [
        *TRACEBACK[:4],
        "",
        "During handling of the above exception, another exception occurred:",
        "",
        *TRACEBACK,
    ]
    assert errors(chained) == [TRACEBACK[3], TRACEBACK[3]]


def test_task_log_shows_exceptions_as_python_does():
    assert entries(TASK_LOG) == [
        "[info] ::group::Log message source details",
        "2026-11-25T21:14:50Z [error] Task failed with exception",
        "Traceback (most recent call last):",
        '  File "validation.py", line 7, in validate',
        "ValueError: 10 samples",
    ]
    assert entries({"content": ["a line as it was written"]}) == ["a line as it was written"]


def test_many_errors_are_shown_in_part():
    flood = [Log(f"s{number}", f"{number}.log", ["x" * 5000] * 1000) for number in range(40)]
    lines = section(flood, "reports")
    assert len(lines) == 40 + failure_report.SHOWN_LOGS * failure_report.SHOWN_LINES
    assert max(map(len, lines)) < 400
    assert lines[-1] == "s39: errors (1000) in reports/39.log", "every log is named"


def test_stack_without_logs_is_reported():
    assert section([], "reports") == ["no logs"]


def test_paths_are_relative_to_the_repository():
    stack = Stack(state=ROOT / "compose", dags=ROOT / "dags", reports=ROOT / "reports/integration")
    assert stack.project.shown(stack.reports / "x.log") == "reports/integration/x.log"


def test_file_name_is_valid_everywhere():
    name = file_name('test_access.py::test_x["a/b:c*?|<>"-%65]')
    assert name == "test_access.py_test_x_a_b_c_-_65"
    long = [file_name("x" * 300 + end) for end in "ab"]
    assert long[0] != long[1]
    assert max(map(len, long)) < 200
