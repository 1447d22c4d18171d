"""Requests to the API and their conversion to observations. tests/unit/migrate uses a real API server."""

from __future__ import annotations

import pytest

from airflow_ha.monitoring.airflow_api import AirflowApiError
from airflow_ha.monitoring.observations import (
    DueDag,
    FailingTask,
    ImportProblem,
    Job,
    Pool,
    QueuedTask,
    Runs,
    ScheduledTask,
)
from airflow_ha.monitoring.observe import COUNTED_DAGS, MAX_HELD_BACK_CHECKS, observe
from airflow_ha.monitoring.thresholds import Thresholds
from tests.unit.monitoring.conftest import NOON, ago


def dag(dag_id, *tags, due=None, **more):
    return {
        "dag_id": dag_id,
        "tags": [{"name": tag} for tag in tags],
        "is_paused": False,
        "has_import_errors": False,
        "max_active_runs": 1,
        "max_active_tasks": 16,
        "next_dagrun_run_after": due.isoformat() if due else None,
    } | more


def run(dag_id, run_id):
    return {"dag_id": dag_id, "dag_run_id": run_id}


def instance(dag_id, task_id, run_id, **more):
    return {"id": f"{dag_id}.{task_id}", "dag_id": dag_id, "task_id": task_id, "dag_run_id": run_id} | more


class Airflow:
    """A fake API client that serves lists."""

    def __init__(self):
        self.requests = []
        self.dags, self.succeeded, self.runs, self.active = [], [], {}, {}
        self.instances = {"failed": [], "queued": [], "scheduled": [], "running": []}
        self.jobs, self.pools, self.errors = [], [], []
        self.too_long = set()

    def get(self, path, **params):
        self.requests.append((path, params))
        if path == "/jobs":
            return {"jobs": self.jobs}
        dag_id = path.split("/")[2].replace("%2F", "/")
        runs = self.runs.get(dag_id, {})
        if dag_id == "~":
            total = sum(each[params["state"]] for each in self.runs.values())
            return {"total_entries": total, "dag_runs": []}
        latest = [run(dag_id, runs["latest"])] if runs.get("latest") else []
        return {"total_entries": runs.get(params["state"], 0), "dag_runs": latest}

    def count(self, path, **params):
        if params["state"] == ["queued", "running"]:
            self.requests.append((path, params))
            return self.active.get(path.split("/")[2], 0)
        return self.get(path, **params)["total_entries"]

    def pages(self, path, key, most, **params):
        self.requests.append((path, params))
        entries = {
            "dags": self.succeeded if "dag_run_state" in params else self.dags,
            "dag_runs": [run(dag_id, "r") for dag_id, runs in self.runs.items() for _ in range(runs["failed"])],
            "task_instances": self.instances.get(params.get("state"), []),
            "pools": self.pools,
            "import_errors": self.errors,
        }[key]
        return entries, path in self.too_long


@pytest.fixture
def airflow():
    return Airflow()


def observe_noon(airflow, **thresholds):
    return observe(airflow, Thresholds(**thresholds), NOON)


def test_empty_airflow_needs_few_requests(airflow):
    observed = observe_noon(airflow)
    assert (observed.all_runs, observed.runs, observed.jobs, observed.pools, observed.queued, observed.due) == (
        Runs(0, 0),
        {},
        (),
        (),
        (),
        (),
    )
    assert len(airflow.requests) < 15


def test_runs_are_counted_in_the_window(airflow):
    observe_noon(airflow, window_hours=6)
    since = {params["end_date_gte"] for path, params in airflow.requests if path.endswith("/dagRuns")}
    assert since == {"2026-09-01T06:00:00+00:00"}


def test_dags_with_failed_runs_have_counts_and_the_latest_run(airflow):
    airflow.dags = [dag("etl"), dag("a/b")]
    airflow.runs = {
        "etl": {"failed": 3, "success": 7, "latest": "r+3"},
        "a/b": {"failed": 1, "success": 1, "latest": "r1"},
    }
    observed = observe_noon(airflow)
    assert observed.runs == {"etl": Runs(7, 3, "r+3"), "a/b": Runs(1, 1, "r1")}
    assert observed.all_runs == Runs(8, 4)


def test_monitoring_dags_are_excluded_from_failure_rates(airflow):
    airflow.dags = [dag("etl"), dag("canary_dag", "canary", "monitoring")]
    airflow.succeeded = [dag("canary_dag", "monitoring")]
    airflow.runs = {
        "etl": {"failed": 1, "success": 4, "latest": "r"},
        "canary_dag": {"failed": 40, "success": 1400, "latest": "c"},
    }
    airflow.instances["failed"] = [instance("canary_dag", "measure_latency", "c")]
    observed = observe_noon(airflow)
    assert observed.all_runs == Runs(4, 1)
    assert observed.runs == {"etl": Runs(4, 1, "r")}
    assert observed.failing_tasks == ()
    assert observed.healthy_dags == frozenset()


def test_dag_whose_file_was_removed_is_excluded(airflow):
    airflow.runs = {"removed": {"failed": 9, "success": 0, "latest": "r"}}
    assert observe_noon(airflow).runs == {}


def test_flood_of_failing_dags_counts_the_worst(airflow):
    airflow.dags = [dag(f"d{number}") for number in range(COUNTED_DAGS + 5)]
    airflow.runs = {f"d{number}": {"failed": number + 1, "success": 0} for number in range(COUNTED_DAGS + 5)}
    observed = observe_noon(airflow)
    assert len(observed.runs) == COUNTED_DAGS
    assert "d0" not in observed.runs


def test_dags_without_a_failed_run_are_healthy(airflow):
    airflow.dags = [dag("etl"), dag("fine")]
    airflow.runs = {"etl": {"failed": 1, "success": 1}}
    airflow.succeeded = [dag("etl"), dag("fine")]
    assert observe_noon(airflow).healthy_dags == {"fine"}


def test_failed_tasks_are_counted_by_dag_and_task(airflow):
    airflow.dags = [dag("etl")]
    airflow.runs = {"etl": {"failed": 3, "success": 0}}
    airflow.instances["failed"] = [
        instance("etl", "load", "r3"),
        instance("etl", "extract", "r2"),
        instance("etl", "load", "r1"),
        instance("removed", "x", "r9"),
    ]
    assert observe_noon(airflow).failing_tasks == (
        FailingTask("etl", "load", 2),
        FailingTask("etl", "extract", 1),
    )


def test_failed_tasks_are_not_requested_without_a_failed_run(airflow):
    observe_noon(airflow)
    assert [
        params for path, params in airflow.requests if path.endswith("taskInstances") and params["state"] == "failed"
    ] == []


def test_components_are_read_from_their_jobs(airflow):
    job = {
        "job_type": "SchedulerJob",
        "hostname": "s1",
        "state": "running",
        "start_date": "2026-09-01T11:00:00Z",
        "latest_heartbeat": "2026-09-01T11:59:55Z",
    }
    airflow.jobs = [
        job,
        job | {"job_type": "TriggererJob", "state": "success", "hostname": None},
        job | {"job_type": "LocalTaskJob"},
        job | {"job_type": None},
        job | {"latest_heartbeat": None},
    ]
    assert observe_noon(airflow).jobs == (
        Job("scheduler", "s1", running=True, started=ago(3600), heartbeat=ago(5)),
        Job("triggerer", "unknown", running=False, started=ago(3600), heartbeat=ago(5)),
    )


def test_pools_tasks_and_import_errors_are_read(airflow):
    airflow.pools = [{"name": "p", "slots": 2, "open_slots": 0, "scheduled_slots": 3, "queued_slots": 1}]
    airflow.instances["queued"] = [
        instance("etl", "load", "r1", queue=None, queued_when="2026-09-01T11:59:00"),
        instance("etl", "just_left_it", "r1", queue="q", queued_when=None),
    ]
    airflow.instances["running"] = [{"hostname": "w1"}, {"hostname": "w2"}, {"hostname": "w1"}, {"hostname": ""}]
    airflow.errors = [
        {"filename": "a.py", "stack_trace": "Traceback:\n  line\nNameError: x\nDid you mean: y\n\n"},
        {"filename": "b.py", "stack_trace": None},
    ]
    observed = observe_noon(airflow)
    assert observed.pools == (Pool("p", 2, 0, 3),)
    assert observed.queued == (QueuedTask("etl.load", "etl", "load", "r1", "default", ago(60)),)
    assert observed.running == {"w1": 2, "w2": 1}
    assert observed.import_problems == (ImportProblem("a.py", "NameError: x"), ImportProblem("b.py", "unknown"))


def scheduled(dag_id, **more):
    return instance(dag_id, "t", "r1", pool="p", pool_slots=3, scheduled_when="2026-09-01T11:59:00Z") | more


def test_scheduled_tasks_of_unpaused_dags_are_read(airflow):
    airflow.dags = [dag("etl"), dag("paused", is_paused=True), dag("blocked", max_active_tasks=0)]
    airflow.instances["scheduled"] = [
        scheduled("etl"),
        scheduled("paused"),
        scheduled("removed"),
        scheduled("etl", id="just left it", scheduled_when=None),
    ]
    observed = observe_noon(airflow)
    assert observed.scheduled == (ScheduledTask("etl", "t", "r1", "p", 3, ago(60)),)
    assert observed.blocked_dags == {"blocked"}
    requests = [params.get("state", path) for path, params in airflow.requests]
    assert requests.index("scheduled") < requests.index("/pools"), "a pool that is created meanwhile would be missing"


def test_backlog_of_scheduled_tasks_is_read_from_both_ends(airflow):
    airflow.dags = [dag("etl")]
    airflow.instances["scheduled"] = [scheduled("etl")]
    airflow.too_long = {"/dags/~/dagRuns/~/taskInstances"}
    assert len(observe_noon(airflow).scheduled) == 1
    orders = [params["order_by"] for _, params in airflow.requests if params.get("state") == "scheduled"]
    assert orders == ["run_after", "-run_after"]


def test_unpaused_imported_dags_with_a_schedule_are_due(airflow):
    airflow.dags = [
        dag("on", due=ago(-60)),
        dag("paused", due=ago(900), is_paused=True),
        dag("broken", due=ago(900), has_import_errors=True),
        dag("manual"),
    ]
    assert observe_noon(airflow).due == (DueDag("on", ago(-60)),)


def test_late_dag_at_max_active_runs_is_held_back(airflow):
    airflow.dags = [dag("full", due=ago(900)), dag("idle", due=ago(900)), dag("wide", due=ago(900), max_active_runs=2)]
    airflow.active = {"full": 1, "wide": 1}
    assert observe_noon(airflow).due == (
        DueDag("full", ago(900), held_back=True),
        DueDag("idle", ago(900)),
        DueDag("wide", ago(900)),
    )


def test_flood_of_late_dags_is_checked_in_part(airflow):
    airflow.dags = [dag(f"d{number}", due=ago(900)) for number in range(MAX_HELD_BACK_CHECKS + 20)]
    assert len(observe_noon(airflow).due) == MAX_HELD_BACK_CHECKS + 20
    assert (
        len([params for _, params in airflow.requests if params.get("state") == ["queued", "running"]])
        == MAX_HELD_BACK_CHECKS
    )


def test_truncated_list_is_named(airflow):
    airflow.too_long = {"/pools"}
    assert observe_noon(airflow).truncated == ("/pools",)


def test_failed_request_gives_no_observations(airflow):
    def refuse(path, **params):
        raise AirflowApiError(path)

    airflow.get = refuse
    with pytest.raises(AirflowApiError):
        observe_noon(airflow)
