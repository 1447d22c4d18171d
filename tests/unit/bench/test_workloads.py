"""The loads are there for the benches only, and a run is timed by Airflow's own clock."""

from __future__ import annotations

import pytest

from ops.bench import workloads
from ops.bench.workloads import (
    DAGS,
    Ended,
    attempts_lost,
    closed_pool,
    first_start,
    run_to_end,
    under_way,
)
from ops.clients.airflow import Run
from ops.dag_file import DagFile
from ops.drills import runner
from ops.errors import StackError

RUN = Run("bench_pair", "r", "queued", 0.0, None)


class Api:
    """Answers what a test says, by method and path, and keeps what it was asked."""

    url = "http://airflow"

    def __init__(self, answers=None, dags=None, instances=()):
        self.answers, self.dags, self.instances = answers or {}, dags if dags is not None else set(), instances
        self.asked: list[str] = []

    def ask(self, method, path, *, missing=False, **options):
        self.asked.append(f"{method} {path}")
        answer = self.answers.get(f"{method} {path}")
        return answer.pop(0) if isinstance(answer, list) else answer

    def has_dag(self, dag_id):
        return dag_id in self.dags

    def trigger(self, dag_id, conf=None):
        self.asked.append(f"trigger {dag_id} {conf}")
        return RUN

    def task_instances(self, run):
        return self.instances

    def run_url(self, run):
        return "http://airflow/run"


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """A clock that goes on only while somebody waits."""
    now = [0.0]
    for module in (workloads, runner):
        monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
        monkeypatch.setattr(module.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


PATH, STATS = "GET /dags/bench_pair/dagRuns/r", "GET /dagStats"
ENDED = {"state": "success", "run_after": "2026-01-01T00:00:00Z", "end_date": "2026-01-01T00:00:01.500000Z"}


def counts(**by_state):
    """Airflow's answer: every state is in it, and a DAG that has had a run."""
    states = {"queued": 0, "running": 0, "success": 7, "failed": 1} | by_state
    return {"dags": [{"stats": [{"state": state, "count": count} for state, count in states.items()]}]}


def test_a_run_is_timed_from_its_request_to_its_end_and_its_tasks_are_loaded_once():
    api = Api({STATS: [counts(queued=1), counts(running=1), counts()], PATH: ENDED})
    ended = run_to_end(api, "bench_pair", {"tasks": 3}, print)
    assert ended == Ended(RUN, "success", 1.5)
    assert api.asked == ["trigger bench_pair {'tasks': 3}", STATS, STATS, STATS, PATH]


def test_a_run_that_fails_is_an_error_unless_it_may():
    failed = {STATS: counts(), PATH: ENDED | {"state": "failed"}}
    with pytest.raises(StackError, match="bench_pair has failed"):
        run_to_end(Api(failed), "bench_pair", {}, print)
    ended = run_to_end(Api(failed), "bench_pair", {}, print, may_fail=True)
    assert ended.state == "failed"


def test_a_run_that_never_ends_is_told_of_and_given_up():
    said: list[str] = []
    with pytest.raises(StackError, match="not ended after 30 s"):
        run_to_end(Api({STATS: counts(running=1)}), "bench_pair", {}, said.append, timeout=30)
    assert len(said) == 2


def test_a_delay_is_from_the_request_to_the_first_task():
    starts = ("2026-01-01T00:00:02Z", "2026-01-01T00:00:00.250000Z")
    api = Api({PATH: ENDED}, instances=[{"start_date": start} for start in starts])
    assert first_start(api, Ended(RUN, "success", 3.0)) == 0.25


def test_attempts_before_the_last_are_lost():
    assert attempts_lost(Api(instances=[{"try_number": number} for number in (0, 1, 3)]), RUN) == 2


def test_runs_that_wait_to_begin_are_under_way_too():
    assert under_way(Api({"GET /dags/~/dagRuns": {"total_entries": 3}})) == 3


def test_a_closed_pool_is_made_anew_and_removed():
    pool = "/pools/bench_closed"
    api = Api({f"GET {pool}": {"scheduled_slots": 100}})
    with closed_pool(api) as waiting:
        assert waiting(100)
        assert not waiting(101)
        assert api.asked[:2] == [f"DELETE {pool}", "POST /pools"]
    assert api.asked[-1] == f"DELETE {pool}"


def test_dags_are_removed_when_airflow_knows_that_their_file_is_gone(tmp_path):
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
    assert api.asked == ["DELETE /dags/one"]


def test_the_file_holds_the_dags_that_it_is_said_to_hold_and_they_know_their_pool():
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=str(DAGS.path))
    assert bag.import_errors == {}
    assert set(bag.dags) == set(DAGS.ids)
    pools = {dag_id: bag.dags[dag_id].get_task("work").pool for dag_id in (workloads.FAN_OUT, workloads.HELD)}
    assert pools == {workloads.FAN_OUT: "default_pool", workloads.HELD: workloads.POOL}
