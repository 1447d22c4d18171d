"""A fault of one task's process affects no other task, its log names the reason, and nothing of it remains."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from tests.stack import Stack, wait_until

DAGS = ("task_ends", "task_leaves", "task_uses")


@dataclass(frozen=True)
class Ended:
    """The ended runs of this file's DAGs.

    Attributes:
        stack: Where they ran.
        runs: The run of each DAG.
    """

    stack: Stack
    runs: dict[str, str]

    def instances(self, dag: str, task: str) -> list[dict[str, object]]:
        return self.stack.api.task_instances(dag, self.runs[dag], task)

    def state(self, dag: str, task: str) -> tuple[object, object]:
        """Return the state of a task, and the number of its last try."""
        (instance,) = self.instances(dag, task)
        return instance["state"], instance["try_number"]

    def log(self, dag: str, task: str, number: int = 1) -> str:
        return self.stack.api.log(dag, self.runs[dag], task, number)

    def called(self, task: str) -> list[str]:
        """Return the called callbacks of a task, each with the try."""
        folders = {"worker": "/opt/airflow/artifacts/called", "dag-processor": "/tmp/called"}
        names = [
            name
            for service, folder in folders.items()
            for name in self.stack.containers(service)[0].execute("ls", folder, check=False).stdout.split()
        ]
        run = re.sub(r"[^\w.-]", "_", self.runs["task_ends"])
        calls = [name.removeprefix(f"{run}.{task}.") for name in names if name.startswith(f"{run}.{task}.")]
        return sorted(calls, key=lambda call: call[::-1])


@pytest.fixture(scope="module")
def ended(stack: Stack) -> Ended:
    """Run all DAGs at once: the harmless tasks run beside the faulty ones."""
    api = stack.api
    for dag in DAGS:
        wait_until(lambda dag=dag: api.has_dag(dag), timeout=60, what=f"{dag} is there")
    runs = {dag: api.trigger(dag) for dag in DAGS}
    for dag, run in runs.items():
        api.wait_for_run(dag, run, timeout=120)
    return Ended(stack, runs)


def test_harmless_tasks_beside_them_lose_no_try(ended: Ended):
    instances = ended.instances("task_ends", "harmless")
    assert [(ti["state"], ti["try_number"]) for ti in instances] == [("success", 1)] * 2


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("hog", ["OOM", "peak memory"]),
        ("killed", ["SIGKILL", "peak memory"]),
        ("segfault", ["SIGSEGV", "string_at"]),
        ("exits", ["exit code 3"]),
        ("exits_with_0", ["exit code 0"]),
    ],
)
def test_log_names_what_ended_the_process(ended: Ended, task: str, words: list[str]):
    log = ended.log("task_ends", task)
    assert not [word for word in words if word not in log], log


@pytest.mark.parametrize(
    ("task", "state"),
    [
        ("hog", ("success", 2)),
        ("killed", ("failed", 2)),
        ("segfault", ("failed", 1)),
        ("exits", ("failed", 1)),
        ("exits_with_0", ("failed", 1)),
        ("odd_error", ("failed", 1)),
    ],
)
def test_ended_process_counts_as_a_try(ended: Ended, task: str, state: tuple[str, int]):
    assert ended.state("task_ends", task) == state


@pytest.mark.parametrize("task", ["segfault", "exits", "exits_with_0"])
def test_state_is_right_before_heartbeats_are_missed(ended: Ended, task: str):
    (instance,) = ended.instances("task_ends", task)
    assert float(str(instance["duration"])) < 25


@pytest.mark.parametrize(
    ("task", "calls"),
    [
        ("hog", ["retried.1"]),
        ("killed", ["retried.1", "failed.2"]),
        ("segfault", ["failed.1"]),
        ("exits", ["failed.1"]),
        ("exits_with_0", ["failed.1"]),
        ("odd_error", ["failed.1"]),
        ("harmless", []),
    ],
)
def test_callbacks_run_as_for_any_failure(ended: Ended, task: str, calls: list[str]):
    wait_until(lambda: len(ended.called(task)) >= len(calls), timeout=60, what=f"the callbacks of {task}")
    assert ended.called(task) == calls


def test_task_process_endings_are_counted(ended: Ended):
    query = 'sum by (reason) (airflow_ha_task_killed{dag_id="task_ends"})'

    def counted() -> dict[str, float]:
        return {series["metric"]["reason"]: float(series["value"][1]) for series in ended.stack.prometheus.query(query)}

    wait_until(lambda: {"oom", "signal", "exit"} <= set(counted()), timeout=60, what="each reason is counted")


def test_processes_that_a_task_left_behind_are_gone(ended: Ended):
    assert ended.state("task_leaves", "processes") == ("success", 1)
    (instance,) = ended.instances("task_leaves", "processes")
    assert float(str(instance["duration"])) < 30
    for worker in ended.stack.containers("worker"):
        programs = worker.execute("sh", "-c", "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '", check=False).stdout
        assert "sleep 3000" not in programs
        states = worker.execute("sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null", check=False).stdout
        assert not re.findall(r"\) Z ", states)


def test_files_of_a_task_are_gone(ended: Ended):
    assert ended.state("task_leaves", "files") == ("success", 1)
    folder = str(ended.stack.api.xcom("task_leaves", ended.runs["task_leaves"], "files"))
    for worker in ended.stack.containers("worker"):
        assert worker.execute("test", "-e", folder, check=False).returncode == 1


def test_task_that_fills_the_disk_ends_alone(ended: Ended):
    if ended.stack.settings.get("TASK_SCRATCH_LIMIT") != "1500m":
        pytest.skip("the stack that is up has another limit")
    assert ended.state("task_leaves", "fills") == ("failed", 1)
    log = ended.log("task_leaves", "fills")
    assert "No space left on device" in log
    assert "1.5 GiB" in log


@pytest.mark.parametrize("task", ["processes", "joblib", "places", "virtual_environment", "other_interpreter", "bash"])
def test_what_python_tasks_commonly_do_works(ended: Ended, task: str):
    assert ended.state("task_uses", task) == ("success", 1), ended.log("task_uses", task)


def test_task_reads_dags_by_a_relative_path(ended: Ended):
    assert ended.stack.api.xcom("task_uses", ended.runs["task_uses"], "places") == ["process_dags.py", "True"]
