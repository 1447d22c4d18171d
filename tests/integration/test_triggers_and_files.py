"""A faulty trigger or DAG file affects only its own task or its own DAGs, and logs show no secret."""

from __future__ import annotations

import ast
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from tests.stack import Stack, wait_until

TRIGGERS = Path(__file__).parent / "dags" / "faulty_triggers_dag.py"
PASSWORD = 'p@ss/w+rd "of" the test'
FILES = {
    "exits": ("os._exit(3)", "exit code 3"),
    "segfault": ("ctypes.string_at(0)", "SIGSEGV"),
    "killed": ("os.kill(os.getpid(), 9)", "SIGKILL"),
    "takes_all_memory": ("kept = [bytearray(b'x') * 10_000_000 for _ in range(10_000)]", "memory limit"),
    "never_ends": ("while True: pass", "timeout"),
}
STORED = frozenset({"not_a_number", "infinite"})
"""Odd events that Airflow stores: their tasks resume."""
FATAL = ("segmentation_fault", "ends_the_process")
FATAL_NIGHTLY = ("blocks_for_ever", "takes_all_memory")


def faults() -> list[str]:
    """Return the names of the faulty triggers in the DAG file."""
    for node in ast.parse(TRIGGERS.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FAULTS":
            return list(ast.literal_eval(ast.unparse(ast.List([*node.value.keys], ast.Load()))))  # type: ignore[attr-defined]
    raise AssertionError(f"no FAULTS in {TRIGGERS}")


@dataclass(frozen=True)
class Started:
    """The DAG files and runs of these tests, started together.

    Attributes:
        files: The DAG files that end their parsers, by their names in FILES.
        runs: The runs' ids, by DAG.
        at: Their start, in Unix seconds.
    """

    files: dict[str, Path]
    runs: dict[str, str]
    at: float


@pytest.fixture(scope="module")
def started(stack: Stack) -> Iterator[Started]:
    at = time.time()
    files = {name: stack.dags / f"file_that_{name}.py" for name in FILES}
    for name, (statement, _) in FILES.items():
        files[name].write_text(f"import ctypes, os\nfrom airflow.sdk import dag\n{statement}\n")
        files[name].chmod(0o644)
    body = {"connection_id": "prints_secrets", "conn_type": "postgres", "host": "h", "login": "u", "password": PASSWORD}
    stack.api.http.post("/api/v2/connections", json=body).raise_for_status()
    dags = ["faulty_triggers", "prints_secrets", *(f"fatal_trigger_{name}" for name in FATAL)]
    try:
        yield Started(files, {dag_id: stack.api.trigger(dag_id) for dag_id in dags}, at)
    finally:
        for path in files.values():
            path.unlink(missing_ok=True)
        stack.api.http.delete("/api/v2/connections/prints_secrets")


def assert_ended(stack: Stack, dag_id: str, run: str, failed: set[str]) -> None:
    """Check that the run's faulty tasks have failed, and that the task with a good trigger has succeeded."""
    stack.api.wait_for_run(dag_id, run, timeout=120)
    states = {ti["task_id"]: ti["state"] for ti in stack.api.task_instances(dag_id, run)}
    assert states == {**dict.fromkeys(failed, "failed"), **dict.fromkeys(STORED & failed, "success"), "good": "success"}


def test_a_refused_event_fails_its_own_task_only(stack: Stack, started: Started):
    run = started.runs["faulty_triggers"]
    assert_ended(stack, "faulty_triggers", run, set(faults()))
    assert "cannot be stored" in stack.api.log("faulty_triggers", run, "nul_in_value")
    assert "ModuleNotFoundError" in stack.api.log("faulty_triggers", run, "no_such_class")


def test_a_trigger_that_ends_the_triggerer_fails(stack: Stack, started: Started):
    """Check too that the restarted triggerer does not load it: both tasks with a good trigger succeed."""
    for name in FATAL:
        dag_id = f"fatal_trigger_{name}"
        assert_ended(stack, dag_id, started.runs[dag_id], {"fatal"})
    dag_id = "fatal_trigger_segmentation_fault"
    assert "SIGSEGV" in stack.api.log(dag_id, started.runs[dag_id], "fatal")


@pytest.mark.nightly
@pytest.mark.parametrize("name", FATAL_NIGHTLY)
def test_a_trigger_that_blocks_or_takes_all_memory_fails(stack: Stack, name: str):
    dag_id = f"fatal_trigger_{name}"
    assert_ended(stack, dag_id, stack.api.trigger(dag_id), {"fatal"})


def test_a_secret_is_not_in_a_tasks_log(stack: Stack, started: Started):
    run = started.runs["prints_secrets"]
    assert stack.api.wait_for_run("prints_secrets", run, timeout=60) == "success"
    log = stack.api.log("prints_secrets", run, "print_all")
    assert "logged: " in log
    assert "***" in log
    mounted = stack.state / "secrets" / "mounted" / "airflow"
    urls = [(mounted / name).read_text().strip() for name in ("celery_broker_url", "celery_result_backend")]
    passwords = [urlsplit(url.split(";")[0]).password or "" for url in urls]
    for secret in (*urls, *passwords, PASSWORD, quote(PASSWORD, safe="")):
        assert secret
        assert secret not in log


def test_a_file_that_ends_its_parser_is_an_import_error(stack: Stack, started: Started):
    def errors() -> dict[str, str]:
        records = stack.api.get("/importErrors", limit=100)["import_errors"]
        return {record["filename"]: record["stack_trace"] for record in records}

    def all_reported() -> bool:
        reported = errors()
        return all(reason in reported.get(started.files[name].name, "") for name, (_, reason) in FILES.items())

    wait_until(all_reported, timeout=120, what="every file has its import error", interval=2)
    shown = {error["file"] for error in stack.status()["dags"]["import_errors"]}
    assert {path.name for path in started.files.values()} <= {Path(file).name for file in shown}

    # The others are read meanwhile, and what is fixed or removed clears.
    fixed, *others = started.files.values()
    fixed.write_text("from airflow.sdk import DAG\nwith DAG('fixed_file', schedule=None):\n    pass\n")
    for path in others:
        path.unlink()
    wait_until(lambda: stack.api.has_dag("fixed_file"), timeout=60, what="the fixed file is read")
    names = {path.name for path in started.files.values()}
    wait_until(lambda: not names & errors().keys(), timeout=60, what="no import error is left")
    assert stack.api.has_dag("ml_pipeline_dag")
    fixed.unlink()
