"""Each check at, below and above its threshold, and its alert texts."""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta

import pytest

from airflow_ha.monitoring import checks, findings
from airflow_ha.monitoring.check_state import (
    CheckState,
    Condition,
    current_conditions,
    overdue_key,
    queued_key,
    update_conditions,
)
from airflow_ha.monitoring.observations import (
    DueDag,
    FailingTask,
    ImportProblem,
    Job,
    Observations,
    Pool,
    QueuedTask,
    Runs,
    ScheduledTask,
)
from airflow_ha.monitoring.thresholds import ThresholdError, Thresholds
from tests.unit.monitoring.conftest import NOON, SLOTS, ago

DEFAULTS = Thresholds()


def check(observed, state=None, thresholds=DEFAULTS):
    return checks.check(observed, state or CheckState(), thresholds, SLOTS)


def observed(**values):
    return Observations(at=NOON, **values)


def test_empty_observations_give_no_finding():
    assert check(observed()) == []


@pytest.mark.parametrize(("success", "failed", "is_finding"), [(8, 2, False), (79, 21, True), (80, 20, False)])
def test_overall_finding_if_more_than_a_fifth_of_runs_failed(success, failed, is_finding):
    names = [each.alertname for each in check(observed(all_runs=Runs(success, failed)))]
    assert names == ([findings.FAILURE_RATE_HIGH] if is_finding else [])


@pytest.mark.parametrize(("ended", "is_finding"), [(4, False), (5, True)])
def test_too_few_ended_runs_give_no_finding(ended, is_finding):
    runs = Runs(0, ended, "r")
    assert bool(check(observed(all_runs=runs))) is is_finding
    assert bool(check(observed(runs={"d": runs}))) is is_finding


def test_overall_finding_names_the_worst_dags():
    (finding,) = checks.failure_rate(observed(all_runs=Runs(6, 4), runs={"a": Runs(3, 1), "b": Runs(0, 3)}), DEFAULTS)
    assert "4 of 10 in 24 h (40%)" in finding.summary
    assert "b 3 of 3, a 1 of 4" in finding.description


@pytest.mark.parametrize(("success", "failed", "is_finding"), [(8, 2, False), (7, 3, True), (9, 1, False)])
def test_dag_finding_if_more_than_a_fifth_of_its_runs_failed(success, failed, is_finding):
    names = [each.alertname for each in check(observed(runs={"d": Runs(success, failed, "r")}))]
    assert names == ([findings.DAG_RUNS_FAILING] if is_finding else [])


def test_failing_dag_names_its_tasks_and_links_to_the_latest_run():
    tasks = (
        FailingTask("etl", "load", 2),
        FailingTask("other", "x", 9),
        FailingTask("etl", "a/b", 1),
    )
    (finding,) = check(observed(runs={"etl": Runs(7, 3, "scheduled__2026-09-01T00:00:00+00:00")}, failing_tasks=tasks))
    assert finding.labels == {"dag_id": "etl"}
    assert finding.team == "data"
    assert "etl" in finding.summary
    assert "3 of 10 runs in 24 h (30%)" in finding.summary
    assert finding.run_url == "/dags/etl/runs/scheduled__2026-09-01T00%3A00%3A00%2B00%3A00"
    assert "etl.load 2, etl.a/b 1" in finding.description
    assert "/dags/" not in finding.description, "a message shows a path of the description without its base URL"
    assert "other" not in finding.description


def test_failed_runs_without_a_failed_task_link_to_the_dag():
    (finding,) = check(observed(runs={"etl": Runs(0, 5)}))
    assert "timed out" in finding.description
    assert finding.run_url == "/dags/etl"


def test_flood_of_failing_tasks_is_listed_in_part_and_counted():
    tasks = [FailingTask("etl", f"t{number}", 1) for number in range(14)]
    text = checks.failing_tasks(tasks)
    assert "t9" in text
    assert "t10" not in text
    assert "4 more" in text


def job(component="scheduler", silent=1.0, started=3600.0, hostname="a", running=True):
    return Job(component, hostname, running, ago(started), ago(silent))


HEALTHY = (job("scheduler", hostname="s1"), job("scheduler", hostname="s2"), job("dag-processor"), job("triggerer"))


def test_components_with_a_heartbeat_give_no_finding():
    assert check(observed(jobs=HEALTHY)) == []


@pytest.mark.parametrize(("silent", "is_finding"), [(119, False), (120, False), (121, True)])
def test_only_triggerer_is_down_after_the_silence_limit(silent, is_finding):
    result = check(observed(jobs=(*HEALTHY[:3], job("triggerer", silent=silent))))
    assert [each.labels for each in result] == ([{"component": "triggerer"}] if is_finding else [])
    assert all(each.alertname == findings.COMPONENT_DOWN and each.team == "platform" for each in result)


@pytest.mark.parametrize("running", [True, False])
def test_only_instance_is_down_whether_stopped_or_killed(running):
    (finding,) = check(observed(jobs=(*HEALTHY[:3], job("triggerer", silent=600, running=running))))
    assert "triggerer" in finding.summary
    assert "600 s" in finding.summary


def test_lost_scheduler_is_named_with_the_remaining_ones():
    (finding,) = check(observed(jobs=(*HEALTHY, job("scheduler", silent=300, hostname="s3"))))
    assert [part for part in ("scheduler s3", "300 s", "2 remaining") if part not in finding.summary] == []
    assert finding.labels == {"component": "scheduler"}
    assert "Alive: s1, s2." in finding.description


def test_stopped_scheduler_beside_another_gives_no_finding():
    assert check(observed(jobs=(*HEALTHY, job("scheduler", silent=300, running=False)))) == []


def test_replaced_scheduler_gives_no_finding():
    assert (
        check(observed(jobs=(*HEALTHY, job("scheduler", silent=300), job("scheduler", started=290, hostname="s4"))))
        == []
    )


def test_scheduler_lost_long_ago_counts_as_removed():
    assert check(observed(jobs=(*HEALTHY, job("scheduler", silent=checks.REMOVED_AFTER + 1, started=9000)))) == []


def test_starting_stack_gives_no_finding():
    jobs = (job("scheduler", started=60), job("dag-processor", started=60), job("triggerer", silent=9000, started=9999))
    assert check(observed(jobs=jobs)) == []


def test_every_silent_component_is_a_finding():
    result = check(observed(jobs=(job("scheduler", silent=500), job("triggerer", silent=500))))
    assert [each.labels["component"] for each in result] == ["scheduler", "triggerer"]


FULL = Pool("small", slots=2, open=0, scheduled=3)


@pytest.mark.parametrize(("minutes", "is_finding"), [(0, False), (5, False), (6, True)])
def test_pool_starves_if_full_with_waiting_tasks_for_too_long(observe_for, minutes, is_finding):
    result = check(*observe_for({"pools": (FULL,)}, minutes))
    assert [each.labels for each in result] == ([{"pool_name": "small"}] if is_finding else [])
    assert not result or [part for part in ("small", "6 min", "3 slots") if part not in result[0].summary] == []


@pytest.mark.parametrize(
    "pool",
    [Pool("p", 2, 1, 3), Pool("p", 2, 0, 0), Pool("endless", -1, -1, 3)],
    ids=["a slot is free", "no task waits", "endless"],
)
def test_pool_with_free_slots_or_no_waiting_task_does_not_starve(observe_for, pool):
    assert check(*observe_for({"pools": (pool,)}, 30)) == []


def queued(seconds, instance="i"):
    return QueuedTask(instance, "etl", "load", "r1", "gpu", ago(seconds))


@pytest.mark.parametrize(("seconds", "is_finding"), [(299, False), (300, False), (301, True)])
def test_task_queued_for_too_long_is_a_finding(seconds, is_finding):
    result = check(observed(queued=(queued(seconds),)))
    assert [each.alertname for each in result] == ([findings.QUEUED_TOO_LONG] if is_finding else [])
    assert all(each.labels == {} and each.run_url == "/dags/etl/runs/r1" for each in result)


def test_requeued_task_counts_from_its_first_queued_time():
    state = CheckState(conditions={queued_key("i"): Condition(ago(400), ago(60))})
    assert checks.oldest_queued(observed(queued=(queued(20),)), state) == 400
    (finding,) = check(observed(queued=(queued(20), queued(350, "j"))), state)
    assert [part for part in ("etl.load", "400 s", "1 more") if part not in finding.summary] == []
    assert "etl.load (queue gpu)" in finding.description


def test_oldest_queued_is_0_without_queued_tasks():
    assert checks.oldest_queued(observed(), CheckState()) == 0


@pytest.mark.parametrize(("minutes", "is_finding"), [(5, False), (6, True)])
def test_workers_full_for_too_long_with_a_queue_are_a_finding(observe_for, minutes, is_finding):
    result = check(*observe_for({"queued": (queued(10),), "running": {"w1": SLOTS, "w2": SLOTS}}, minutes))
    assert [each.alertname for each in result] == ([findings.WORKERS_FULL] if is_finding else [])
    assert not result or [part for part in ("2 workers", "6 min", "1 tasks") if part not in result[0].summary] == []


@pytest.mark.parametrize(
    "values",
    [
        {"queued": (queued(10),), "running": {"w1": SLOTS, "w2": SLOTS - 1}},
        {"queued": (), "running": {"w1": SLOTS}},
        {"queued": (queued(10),), "running": {}},
    ],
    ids=["one has a free slot", "no task waits", "nothing runs"],
)
def test_workers_with_a_free_slot_or_no_queue_are_not_full(observe_for, values):
    assert check(*observe_for(values, 30)) == []


@pytest.mark.parametrize(("late", "is_finding"), [(-60, False), (300, False), (301, True)])
def test_dag_is_overdue_after_the_limit(observe_for, late, is_finding):
    result = check(*observe_for({"due": (DueDag("etl", ago(late)),)}, 5))
    assert [each.labels for each in result] == ([{"dag_id": "etl"}] if is_finding else [])
    assert all(each.run_url == "/dags/etl" for each in result)


def test_dag_at_max_active_runs_is_not_overdue(observe_for):
    dag = DueDag("etl", ago(9000), held_back=True)
    assert check(*observe_for({"due": (dag,)}, 5)) == []
    everyone = {"due": (dag, DueDag("b", ago(100)), DueDag("c", ago(-40)))}
    assert checks.seconds_overdue(*observe_for(everyone, 1)) == {"etl": 0, "b": 100, "c": 0}


def test_dag_that_catches_up_is_never_overdue():
    """A DAG that is unpaused with old dates is days late, with another due time at each check."""
    state = CheckState()
    for minute in range(5):
        at = NOON + timedelta(minutes=minute)
        now = Observations(at=at, due=(DueDag("etl", ago(90_000) + timedelta(hours=minute)),))
        state = CheckState(conditions=update_conditions(state.conditions, current_conditions(now, SLOTS), at))
        assert check(now, state) == []
        assert checks.seconds_overdue(now, state) == {"etl": 0}


def test_dag_is_not_overdue_at_the_first_check_after_an_outage(observe_for):
    dag = DueDag("etl", ago(30_000))
    assert check(*observe_for({"due": (dag,)}, 0)) == []
    assert len(check(*observe_for({"due": (dag,)}, 1))) == 1


def test_each_file_that_does_not_import_is_a_finding():
    problems = (ImportProblem("b.py", "NameError: x"), ImportProblem("a.py", "KeyError: y"))
    result = check(observed(import_problems=problems))
    assert [each.labels for each in result] == [{"file": "a.py"}, {"file": "b.py"}]
    assert "KeyError: y" in result[0].description


def test_invalid_threshold_is_a_finding_with_value_and_range():
    (finding,) = checks.misconfigured([ThresholdError("monitoring_failure_rate", "20%", 0, 1, 0.2)])
    assert finding.labels == {"variable": "monitoring_failure_rate"}
    assert "monitoring_failure_rate: '20%'" in finding.description
    assert "0 to 1" in finding.description


def test_every_threshold_changes_its_check():
    values = {
        "all_runs": Runs(5, 5),
        "runs": {"d": Runs(5, 5, "r")},
        "jobs": (*HEALTHY[:3], job("triggerer", silent=400)),
        "pools": (FULL,),
        "queued": (queued(400),),
        "running": {"w": SLOTS},
        "due": (DueDag("etl", ago(400)),),
    }
    lasting = CheckState(
        conditions={
            key: Condition(ago(400), NOON)
            for key in ("pool:small", "workers", overdue_key(DueDag("etl", ago(400))), queued_key("i"))
        }
    )
    everything = len(check(observed(**values), lasting))
    lax = {"failure_rate": 0.5, "min_ended_runs": 11}
    for each in fields(Thresholds):
        if each.name == "window_hours":
            continue
        moved = Thresholds(**{each.name: lax.get(each.name, 401)})
        assert len(check(observed(**values), lasting, moved)) < everything, each.name


def test_no_finding_has_a_label_that_changes_with_the_run(observe_for):
    values = {
        "all_runs": Runs(0, 9),
        "runs": {"d": Runs(0, 9)},
        "failing_tasks": (FailingTask("d", "t", 9),),
        "queued": (QueuedTask("i", "d", "t", "run-1", "q", ago(999)),),
        "due": (DueDag("d", ago(999)),),
    }
    result = check(*observe_for(values, 2))
    assert len(result) == 4
    assert {name for each in result for name in each.labels} == {"dag_id"}
    assert "run-1" not in str([each.labels for each in result])


def test_counts_include_names_without_a_finding():
    counts = checks.counts(check(observed(import_problems=(ImportProblem("a", "b"), ImportProblem("c", "d")))))
    assert counts[findings.IMPORT_ERRORS] == 2
    assert set(counts) == set(findings.ALERT_NAMES)
    assert sum(counts.values()) == 2


def test_interval_is_the_dags_schedule_of_a_minute():
    from airflow_ha.monitoring.alerts import INTERVAL

    assert timedelta(minutes=1) == INTERVAL


NARROW = Pool("ml_training", 2, 2, 0)


def waiting(task="t", *, dag="etl", pool="default_pool", slots=1, since=60, run="r"):
    return ScheduledTask(dag, task, run, pool, slots, ago(since))


@pytest.mark.parametrize(
    ("task", "pools", "figures"),
    [
        (waiting(pool="no_such_pool"), (NARROW,), ["etl.t", "no_such_pool", "does not exist"]),
        (waiting(pool="ml_training", slots=50), (NARROW,), ["etl.t", "50 slots", "ml_training has 2"]),
        (waiting(pool="closed"), (Pool("closed", 0, 0, 0),), ["etl.t", "closed has 0 slots"]),
    ],
    ids=["missing", "narrow", "closed"],
)
def test_task_that_its_pool_never_accepts_is_a_finding(task, pools, figures):
    (finding,) = check(observed(scheduled=(task,), pools=pools))
    assert (finding.alertname, finding.team) == (findings.TASKS_UNSCHEDULABLE, "data")
    assert finding.labels == {"dag_id": "etl", "pool_name": task.pool}
    assert [figure for figure in figures if figure not in finding.summary] == []
    assert finding.run_url == "/dags/etl/runs/r"


def test_dag_with_max_active_tasks_0_is_a_finding():
    (finding,) = check(observed(scheduled=(waiting(),), pools=(Pool("default_pool", 9, 9, 0),), blocked_dags={"etl"}))
    assert finding.labels == {"dag_id": "etl"}
    assert "max_active_tasks" in finding.summary


@pytest.mark.parametrize(
    ("task", "pool"),
    [
        (waiting(pool="p", slots=2), Pool("p", 2, 0, 40)),
        (waiting(pool="p", slots=900), Pool("p", -1, -1, 0)),
        (waiting(pool="made_now", since=5), NARROW),
    ],
    ids=["full", "unlimited", "just scheduled"],
)
def test_task_that_only_waits_is_not_unschedulable(task, pool):
    assert check(observed(scheduled=(task,), pools=(pool,))) == []


def test_tasks_of_one_dag_and_pool_are_one_finding():
    tasks = [waiting("mapped", pool="gone") for _ in range(40)]
    tasks += [waiting(f"t{number}", pool="gone") for number in range(20)]
    tasks += [waiting("a", dag="other", pool="gone"), waiting("wide", pool="ml_training", slots=3)]
    result = check(observed(scheduled=tuple(tasks), pools=(NARROW,)))
    assert [(each.labels["dag_id"], each.labels["pool_name"]) for each in result] == [
        ("etl", "gone"),
        ("etl", "ml_training"),
        ("other", "gone"),
    ]
    assert "21 tasks" in result[0].summary
    assert "60 instances" in result[0].summary
    assert "mapped (40)" in result[0].description
    assert len(result[0].description) < 1000
