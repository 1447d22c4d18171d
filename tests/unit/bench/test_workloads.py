"""Runs of the loads are timed by Airflow's clock, and the loads leave nothing behind."""

from __future__ import annotations

import pytest

from ops.bench import workloads
from ops.bench.workloads import (
    DAGS,
    FinishedRun,
    active_runs,
    closed_pool,
    first_task_delay,
    lost_tries,
    run_and_wait,
)
from ops.clients.airflow import Run
from ops.dag_file import DagFile
from ops.errors import StackError

RUN = Run("bench_pair", "r", "queued", 0.0, None)


class Api:
    """API with prepared answers, by method and path; keeps all requests."""

    url = "http://airflow"

    def __init__(self, answers=None, dags=None, instances=()):
        self.answers, self.dags, self.instances = answers or {}, dags if dags is not None else set(), instances
        self.requests: list[str] = []

    def ask(self, method, path, *, missing=False, **options):
        self.requests.append(f"{method} {path}")
        answer = self.answers.get(f"{method} {path}")
        return answer.pop(0) if isinstance(answer, list) else answer

    def has_dag(self, dag_id):
        return dag_id in self.dags

    def trigger(self, dag_id, conf=None):
        self.requests.append(f"trigger {dag_id} {conf}")
        return RUN

    def task_instances(self, run):
        return self.instances

    def run_url(self, run):
        return "http://airflow/run"


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Clock that advances only during sleeps."""
    now = [0.0]
    monkeypatch.setattr(workloads.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(workloads.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


PATH, STATS = "GET /dags/bench_pair/dagRuns/r", "GET /dagStats"
ENDED = {"state": "success", "run_after": "2026-01-01T00:00:00Z", "end_date": "2026-01-01T00:00:01.500000Z"}


def counts(**by_state):
    """Return the statistics of a DAG with finished runs; every state is in them."""
    states = {"queued": 0, "running": 0, "success": 7, "failed": 1} | by_state
    return {"dags": [{"stats": [{"state": state, "count": count} for state, count in states.items()]}]}


def test_run_is_timed_to_its_terminal_state():
    api = Api({STATS: [counts(queued=1), counts(running=1), counts()], PATH: ENDED})
    finished = run_and_wait(api, "bench_pair", {"tasks": 3}, print)
    assert finished == FinishedRun(RUN, "success", 1.5)
    assert api.requests == ["trigger bench_pair {'tasks': 3}", STATS, STATS, STATS, PATH]


def test_failed_run_is_an_error_unless_it_may_fail():
    failed = {STATS: counts(), PATH: ENDED | {"state": "failed"}}
    with pytest.raises(StackError, match="bench_pair: the run failed"):
        run_and_wait(Api(failed), "bench_pair", {}, print)
    finished = run_and_wait(Api(failed), "bench_pair", {}, print, may_fail=True)
    assert finished.state == "failed"


def test_unfinished_run_is_reported_and_times_out():
    lines: list[str] = []
    with pytest.raises(StackError, match=r"bench_pair.* 30 s"):
        run_and_wait(Api({STATS: counts(running=1)}), "bench_pair", {}, lines.append, timeout=30)
    assert len(lines) == 2


def test_first_task_delay_begins_at_the_request():
    starts = ("2026-01-01T00:00:02Z", "2026-01-01T00:00:00.250000Z")
    api = Api({PATH: ENDED}, instances=[{"start_date": start} for start in starts])
    assert first_task_delay(api, FinishedRun(RUN, "success", 3.0)) == 0.25


def test_tries_before_the_last_are_lost():
    assert lost_tries(Api(instances=[{"try_number": number} for number in (0, 1, 3)]), RUN) == 2


def test_queued_runs_are_active():
    assert active_runs(Api({"GET /dags/~/dagRuns": {"total_entries": 3}})) == 3


def test_closed_pool_is_recreated_and_removed():
    pool = "/pools/bench_closed"
    api = Api({f"GET {pool}": {"scheduled_slots": 100}})
    with closed_pool(api) as has_waiting:
        assert has_waiting(100)
        assert not has_waiting(101)
        assert api.requests[:2] == [f"DELETE {pool}", "POST /pools"]
    assert api.requests[-1] == f"DELETE {pool}"


def test_dags_are_deleted_once_their_file_is_forgotten(tmp_path):
    dag = tmp_path / "a.py"
    dag.write_text("dag")
    folder = tmp_path / "dags"
    folder.mkdir()
    api = Api(dags={"one"})
    known = iter([{"one"}, {"one"}, {"one"}, set()])
    api.has_dag = lambda dag_id: dag_id in next(known)
    with pytest.raises(ZeroDivisionError), DagFile(dag, ("one",)).in_place(folder, api, print):  # noqa: PT012
        assert (folder / "a.py").exists()
        raise ZeroDivisionError
    assert not (folder / "a.py").exists()
    assert list(known) == []
    assert api.requests == ["DELETE /dags/one"]


def test_dag_file_has_its_dags_and_pools():
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=str(DAGS.path))
    assert bag.import_errors == {}
    assert set(bag.dags) == set(DAGS.ids)
    pools = {dag_id: bag.dags[dag_id].get_task("work").pool for dag_id in (workloads.FAN_OUT, workloads.HELD)}
    assert pools == {workloads.FAN_OUT: "default_pool", workloads.HELD: workloads.POOL}
