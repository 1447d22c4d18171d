"""Common DAGs of a data team work with the defaults: tasks of 200 MB, temporary files, own plugins."""

from __future__ import annotations

from tests.stack import Stack


def oom_kills(stack: Stack) -> dict[str, str]:
    """Return the kernel's counts of OOM kills by worker container, from each memory cgroup."""
    files = "cat /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control 2>/dev/null | grep oom_kill"
    return {worker.id: worker.execute("sh", "-c", files, check=False).stdout for worker in stack.containers("worker")}


def test_16_tasks_of_200_mb_at_once_all_succeed(healthy_stack: Stack):
    api = healthy_stack.api
    before = oom_kills(healthy_stack)
    run = api.trigger("data_tasks")
    assert api.wait_for_run("data_tasks", run, timeout=180) == "success"
    assert [ti["try_number"] for ti in api.task_instances("data_tasks", run)] == [1] * 16
    assert oom_kills(healthy_stack) == before


def test_temporary_files_and_own_plugins_work(healthy_stack: Stack):
    api = healthy_stack.api
    runs = {dag_id: api.trigger(dag_id) for dag_id in ("temporary_files", "own_plugins")}
    states = {dag_id: api.wait_for_run(dag_id, run, timeout=120) for dag_id, run in runs.items()}
    assert states == dict.fromkeys(runs, "success")
    assert api.xcom("temporary_files", runs["temporary_files"], "places")[-1] == "ran"
    assert api.xcom("own_plugins", runs["own_plugins"], "wait_for_acme") == "from acme"
    assert api.get("/dags/own_plugins")["timetable_summary"]
