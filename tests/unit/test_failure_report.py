"""A test that is made to fail points at the log that explains it."""

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


class PaperStack(Stack):
    """Two containers, whose logs a `docker` of paper prints."""

    def containers(self, service: str | None = None, *, include_exited: bool = False) -> list[Container]:
        return [Container(SCHEDULER, "scheduler", "running", {}), Container(REDIS, "redis", "exited", {})]


class Fixtures:
    """A plugin with the fixture that a folder of integration tests has."""

    def __init__(self, stack: Stack):
        self.made = stack

    @pytest.fixture(scope="session")
    def stack(self) -> Stack:
        return self.made


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the search path with a `docker` that prints the file named after the container."""
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "docker").write_text(DOCKER)
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    (folder / SCHEDULER).write_text("\n".join(TRACEBACK))
    (folder / REDIS).write_text("2026-11-25T21:14:50.1Z 8:M * Ready to accept connections tcp\n")
    return folder


def airflow(*failed: dict, asked: list[httpx.Request]) -> Airflow:
    """Airflow's API with these failed task instances."""

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": "t"})
        if request.url.path.endswith("/logs/2"):
            return httpx.Response(200, json=TASK_LOG)
        return httpx.Response(200, json={"task_instances": list(failed), "total_entries": len(failed)})

    return Airflow("http://airflow", "admin", "p", transport=httpx.MockTransport(answer))


@pytest.fixture
def asked() -> list[httpx.Request]:
    """What Airflow was asked."""
    return []


@pytest.fixture
def stack(programs: Path, tmp_path: Path, asked: list[httpx.Request]) -> Stack:
    made = PaperStack(state=tmp_path, dags=tmp_path, reports=tmp_path / "reports")
    made.__dict__["api"] = airflow(FAILED_TASK, asked=asked)
    return made


def run(pytester: pytest.Pytester, stack: Stack, body: str) -> str:
    """What a session with one test says."""
    pytester.makepyfile(test_made=f"def test_to_fail(stack):\n    {body}\n")
    return pytester.runpytest_inprocess(
        "-p", "no:cacheprovider", plugins=[failure_report, Fixtures(stack)]
    ).stdout.str()


def test_a_test_that_is_made_to_fail_points_at_the_logs_that_explain_it(
    pytester: pytest.Pytester, stack: Stack, programs: Path, asked: list[httpx.Request]
):
    began = time.time()
    said = run(pytester, stack, "assert False, 'made to'")
    assert "made to" in said
    folder = stack.reports / "test_made.py_test_to_fail"
    scheduler = folder / f"scheduler-{SCHEDULER[:12]}.log"
    task = folder / "task_load.work_3_try_2_of_manual_1.log"
    told = said.partition(f"- {failure_report.TITLE} -")[2].splitlines()[1:7]
    assert told == [
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
    assert began - 0.001 <= since <= time.time(), "of this test, not of those before it"
    (question,) = [one.url.params for one in asked if one.url.path.endswith("/~/taskInstances")]
    assert question.get_list("state") == ["failed", "up_for_retry"]
    assert datetime.fromisoformat(question["end_date_gte"]).timestamp() == pytest.approx(since, abs=0.01)


def test_a_test_that_passes_reads_no_log(pytester: pytest.Pytester, stack: Stack, programs: Path):
    assert failure_report.TITLE not in run(pytester, stack, "pass")
    assert not (programs / "calls").exists()
    assert not stack.reports.exists()


def test_a_test_without_a_stack_fails_as_ever(pytester: pytest.Pytester):
    pytester.makepyfile("def test_to_fail():\n    assert False")
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", plugins=[failure_report])
    result.assert_outcomes(failed=1)
    assert failure_report.TITLE not in result.stdout.str()


def test_a_dead_airflow_does_not_hide_what_the_containers_say(pytester: pytest.Pytester, stack: Stack):
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    stack.api.http = httpx.Client(base_url="http://airflow", transport=httpx.MockTransport(refuse))
    said = run(pytester, stack, "assert False")
    assert "BrokenPipeError" in said
    assert "not all could be read: ConnectError('refused')" in said


def test_a_docker_that_is_not_there_does_not_hide_the_failure(pytester, stack, monkeypatch, programs):
    monkeypatch.setenv("PATH", str(programs.parent / "empty"))
    said = run(pytester, stack, "assert False, 'made to'")
    assert "made to" in said
    assert "not all could be read: FileNotFoundError" in said


def test_what_takes_too_long_is_left_out_and_that_is_said(stack: Stack, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(failure_report, "SECONDS", -1.0)
    assert "not all was read" in failure_report.explanation(stack, "bring-up", time.time())


def test_a_second_failure_of_a_test_keeps_only_its_own_logs(stack: Stack):
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
def test_an_error_is_known_in_each_programs_own_words(line: str):
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
def test_an_error_is_not_seen_where_there_is_none(line: str):
    assert errors([line]) == []


def test_of_a_traceback_the_line_counts_that_says_what_was_raised():
    assert errors(TRACEBACK) == [TRACEBACK[3]]
    chained = [
        *TRACEBACK[:4],
        "",
        "During handling of the above exception, another exception occurred:",
        "",
        *TRACEBACK,
    ]
    assert errors(chained) == [TRACEBACK[3], TRACEBACK[3]]


def test_a_tasks_log_reads_as_python_would_show_it():
    assert entries(TASK_LOG) == [
        "[info] ::group::Log message source details",
        "2026-11-25T21:14:50Z [error] Task failed with exception",
        "Traceback (most recent call last):",
        '  File "validation.py", line 7, in validate',
        "ValueError: 10 samples",
    ]
    assert entries({"content": ["a line as it was written"]}) == ["a line as it was written"]


def test_a_flood_of_errors_is_shown_in_part():
    flood = [Log(f"s{number}", f"{number}.log", ["x" * 5000] * 1000) for number in range(40)]
    lines = section(flood, "reports")
    assert len(lines) == 40 + failure_report.SHOWN_LOGS * failure_report.SHOWN_LINES
    assert max(map(len, lines)) < 400
    assert lines[-1] == "s39: errors (1000) in reports/39.log", "each is named"


def test_a_stack_that_said_nothing_is_said_to():
    assert section([], "reports") == ["nothing was logged"]


def test_the_paths_shown_are_those_of_the_repository():
    stack = Stack(state=ROOT / "compose", dags=ROOT / "dags", reports=ROOT / "reports/integration")
    assert stack.project.shown(stack.reports / "x.log") == "reports/integration/x.log"


def test_a_tests_name_is_a_files_name_everywhere():
    name = file_name('test_access.py::test_x["a/b:c*?|<>"-%65]')
    assert name == "test_access.py_test_x_a_b_c_-_65"
    long = [file_name("x" * 300 + end) for end in "ab"]
    assert long[0] != long[1]
    assert max(map(len, long)) < 200
