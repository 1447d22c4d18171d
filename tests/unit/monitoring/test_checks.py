"""Each check at, below and above its threshold, and what it says."""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta

import pytest

from airflow_ha.monitoring import checks, findings
from airflow_ha.monitoring.check_state import Memory, Seen, conditions, overdue_key, queued_key, remember
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


def found(seen, memory=None, thresholds=DEFAULTS):
    return checks.check(seen, memory or Memory(), thresholds, SLOTS)


def seen(**what):
    return Observations(at=NOON, **what)


def test_nothing_seen_is_nothing_found():
    assert found(seen()) == []


@pytest.mark.parametrize(("success", "failed", "is_found"), [(8, 2, False), (79, 21, True), (80, 20, False)])
def test_all_runs_are_a_finding_when_more_than_a_fifth_failed(success, failed, is_found):
    names = [each.alertname for each in found(seen(all_runs=Runs(success, failed)))]
    assert names == ([findings.FAILURE_RATE_HIGH] if is_found else [])


@pytest.mark.parametrize(("ended", "is_found"), [(4, False), (5, True)])
def test_a_few_failed_runs_are_no_rate(ended, is_found):
    runs = Runs(0, ended, "r")
    assert bool(found(seen(all_runs=runs))) is is_found
    assert bool(found(seen(runs={"d": runs}))) is is_found


def test_the_overall_finding_names_the_worst_dags():
    (finding,) = checks.failure_rate(seen(all_runs=Runs(6, 4), runs={"a": Runs(3, 1), "b": Runs(0, 3)}), DEFAULTS)
    assert finding.summary == "4 of 10 DAG runs failed in 24 h (40%)"
    assert "b 3 of 3, a 1 of 4" in finding.description


@pytest.mark.parametrize(("success", "failed", "is_found"), [(8, 2, False), (7, 3, True), (9, 1, False)])
def test_a_dag_is_a_finding_when_more_than_a_fifth_of_its_runs_failed(success, failed, is_found):
    names = [each.alertname for each in found(seen(runs={"d": Runs(success, failed, "r")}))]
    assert names == ([findings.DAG_RUNS_FAILING] if is_found else [])


def test_a_failing_dag_names_its_tasks_and_links_to_the_latest_failed_run():
    tasks = (
        FailingTask("etl", "load", 2, "r+2"),
        FailingTask("other", "x", 9, "r9"),
        FailingTask("etl", "a/b", 1, "r1"),
    )
    (finding,) = found(seen(runs={"etl": Runs(7, 3, "scheduled__2026-09-01T00:00:00+00:00")}, failing_tasks=tasks))
    assert finding.labels == {"dag_id": "etl"}
    assert finding.team == "data"
    assert finding.summary == "etl: 3 of 10 runs failed in 24 h (30%)"
    assert finding.run_url == "/dags/etl/runs/scheduled__2026-09-01T00%3A00%3A00%2B00%3A00"
    assert "etl.load 2 times (latest: /dags/etl/runs/r%2B2/tasks/load)" in finding.description
    assert "etl.a/b 1 times (latest: /dags/etl/runs/r1/tasks/a%2Fb)" in finding.description
    assert "other" not in finding.description


def test_runs_that_failed_without_a_failed_task_say_so_and_link_to_the_dag():
    (finding,) = found(seen(runs={"etl": Runs(0, 5)}))
    assert "No task of it failed" in finding.description
    assert finding.run_url == "/dags/etl"


def test_a_flood_of_failing_tasks_is_named_in_part_and_counted():
    tasks = [FailingTask("etl", f"t{number}", 1, "r") for number in range(14)]
    text = checks.failing_tasks(tasks)
    assert "t9" in text
    assert "t10" not in text
    assert "and 4 tasks more" in text


def job(component="scheduler", silent=1.0, started=3600.0, hostname="a", running=True):
    return Job(component, hostname, running, ago(started), ago(silent))


WELL = (job("scheduler", hostname="s1"), job("scheduler", hostname="s2"), job("dag-processor"), job("triggerer"))


def test_components_with_a_heartbeat_are_well():
    assert found(seen(jobs=WELL)) == []


@pytest.mark.parametrize(("silent", "is_found"), [(119, False), (120, False), (121, True)])
def test_the_only_triggerer_is_missed_when_it_gave_no_sign_for_too_long(silent, is_found):
    result = found(seen(jobs=(*WELL[:3], job("triggerer", silent=silent))))
    assert [each.labels for each in result] == ([{"component": "triggerer"}] if is_found else [])
    assert all(each.alertname == findings.COMPONENT_DOWN and each.team == "platform" for each in result)


@pytest.mark.parametrize("running", [True, False])
def test_the_only_one_of_a_kind_is_missed_whether_it_ended_or_vanished(running):
    (finding,) = found(seen(jobs=(*WELL[:3], job("triggerer", silent=600, running=running))))
    assert finding.summary == "no triggerer is alive; the last sign was 600 s ago"


def test_one_scheduler_of_two_that_vanished_is_missed_by_name():
    (finding,) = found(seen(jobs=(*WELL, job("scheduler", silent=300, hostname="s3"))))
    assert finding.summary == "scheduler s3 gave no sign for 300 s; 2 left"
    assert finding.labels == {"component": "scheduler"}
    assert "Alive: s1, s2." in finding.description


def test_one_that_was_told_to_stop_is_not_missed_beside_another():
    assert found(seen(jobs=(*WELL, job("scheduler", silent=300, running=False)))) == []


def test_one_that_vanished_is_not_missed_once_another_started_in_its_place():
    assert found(seen(jobs=(*WELL, job("scheduler", silent=300), job("scheduler", started=290, hostname="s4")))) == []


def test_one_that_vanished_long_ago_is_taken_for_removed():
    assert found(seen(jobs=(*WELL, job("scheduler", silent=checks.FORGOTTEN + 1, started=9000)))) == []


def test_nothing_is_missed_while_the_stack_starts():
    jobs = (job("scheduler", started=60), job("dag-processor", started=60), job("triggerer", silent=9000, started=9999))
    assert found(seen(jobs=jobs)) == []


def test_all_that_are_silent_are_missed():
    result = found(seen(jobs=(job("scheduler", silent=500), job("triggerer", silent=500))))
    assert [each.labels["component"] for each in result] == ["scheduler", "triggerer"]


FULL = Pool("small", slots=2, open=0, scheduled=3)


@pytest.mark.parametrize(("minutes", "is_found"), [(0, False), (5, False), (6, True)])
def test_a_pool_starves_when_it_has_been_full_with_tasks_waiting_for_too_long(watch, minutes, is_found):
    result = found(*watch({"pools": (FULL,)}, minutes))
    assert [each.labels for each in result] == ([{"pool_name": "small"}] if is_found else [])
    assert not result or result[0].summary == "pool small has had no free slot for 6 min; 3 are wanted"


@pytest.mark.parametrize(
    "pool",
    [Pool("p", 2, 1, 3), Pool("p", 2, 0, 0), Pool("endless", -1, -1, 3)],
    ids=["a slot is free", "nobody waits", "endless"],
)
def test_a_pool_does_not_starve_when_nothing_keeps_tasks_from_it(watch, pool):
    assert found(*watch({"pools": (pool,)}, 30)) == []


def queued(seconds, instance="i"):
    return QueuedTask(instance, "etl", "load", "r1", "gpu", ago(seconds))


@pytest.mark.parametrize(("seconds", "is_found"), [(299, False), (300, False), (301, True)])
def test_a_task_that_is_queued_for_too_long_is_a_finding(seconds, is_found):
    result = found(seen(queued=(queued(seconds),)))
    assert [each.alertname for each in result] == ([findings.QUEUED_TOO_LONG] if is_found else [])
    assert all(each.labels == {} and each.run_url == "/dags/etl/runs/r1" for each in result)


def test_a_task_that_the_scheduler_queues_anew_has_been_queued_since_the_first_time():
    memory = Memory(seen={queued_key("i"): Seen(ago(400), ago(60))})
    assert checks.oldest_queued(seen(queued=(queued(20),)), memory) == 400
    (finding,) = found(seen(queued=(queued(20), queued(350, "j"))), memory)
    assert finding.summary == "etl.load has been queued for 400 s and no worker takes it; so have 1 others"
    assert "etl.load (queue gpu)" in finding.description


def test_nothing_queued_is_an_age_of_nought():
    assert checks.oldest_queued(seen(), Memory()) == 0


@pytest.mark.parametrize(("minutes", "is_found"), [(5, False), (6, True)])
def test_workers_are_full_when_all_have_been_for_too_long_while_tasks_wait(watch, minutes, is_found):
    result = found(*watch({"queued": (queued(10),), "running": {"w1": SLOTS, "w2": SLOTS}}, minutes))
    assert [each.alertname for each in result] == ([findings.WORKERS_FULL] if is_found else [])
    assert not result or result[0].summary == "2 workers have had no free slot for 6 min and 1 tasks wait"


@pytest.mark.parametrize(
    "see",
    [
        {"queued": (queued(10),), "running": {"w1": SLOTS, "w2": SLOTS - 1}},
        {"queued": (), "running": {"w1": SLOTS}},
        {"queued": (queued(10),), "running": {}},
    ],
    ids=["one has a free slot", "nobody waits", "nothing runs"],
)
def test_workers_are_not_full_otherwise(watch, see):
    assert found(*watch(see, 30)) == []


@pytest.mark.parametrize(("late", "is_found"), [(-60, False), (300, False), (301, True)])
def test_a_dag_is_overdue_when_its_run_is_due_for_too_long(watch, late, is_found):
    result = found(*watch({"due": (DueDag("etl", ago(late)),)}, 5))
    assert [each.labels for each in result] == ([{"dag_id": "etl"}] if is_found else [])
    assert all(each.run_url == "/dags/etl" for each in result)


def test_a_dag_that_is_held_back_by_its_own_runs_is_not_overdue(watch):
    dag = DueDag("etl", ago(9000), held_back=True)
    assert found(*watch({"due": (dag,)}, 5)) == []
    everyone = {"due": (dag, DueDag("b", ago(100)), DueDag("c", ago(-40)))}
    assert checks.overdue_for(*watch(everyone, 1)) == {"etl": 0, "b": 100, "c": 0}


def test_a_dag_that_catches_up_is_never_overdue():
    """Unpaused with old dates it is days late, with another due time at each check."""
    memory = Memory()
    for minute in range(5):
        at = NOON + timedelta(minutes=minute)
        now = Observations(at=at, due=(DueDag("etl", ago(90_000) + timedelta(hours=minute)),))
        memory = Memory(seen=remember(memory.seen, conditions(now, SLOTS), at))
        assert found(now, memory) == []
        assert checks.overdue_for(now, memory) == {"etl": 0}


def test_a_dag_is_not_overdue_at_the_first_look_after_a_night_without_airflow(watch):
    dag = DueDag("etl", ago(30_000))
    assert found(*watch({"due": (dag,)}, 0)) == []
    assert len(found(*watch({"due": (dag,)}, 1))) == 1


def test_every_file_that_does_not_import_is_a_finding_of_its_own():
    problems = (ImportProblem("b.py", "NameError: x"), ImportProblem("a.py", "KeyError: y"))
    result = found(seen(import_problems=problems))
    assert [each.labels for each in result] == [{"file": "a.py"}, {"file": "b.py"}]
    assert "KeyError: y" in result[0].description


def test_a_threshold_that_cannot_be_used_is_a_finding_with_variable_value_and_what_it_takes():
    (finding,) = checks.misconfigured([ThresholdError("monitoring_failure_rate", "20%", 0, 1, 0.2)])
    assert finding.labels == {"variable": "monitoring_failure_rate"}
    assert "monitoring_failure_rate is '20%'; it must be a number from 0 to 1" in finding.description


def test_every_threshold_moves_its_check():
    see = {
        "all_runs": Runs(5, 5),
        "runs": {"d": Runs(5, 5, "r")},
        "jobs": (*WELL[:3], job("triggerer", silent=400)),
        "pools": (FULL,),
        "queued": (queued(400),),
        "running": {"w": SLOTS},
        "due": (DueDag("etl", ago(400)),),
    }
    lasting = Memory(
        seen={
            key: Seen(ago(400), NOON)
            for key in ("pool:small", "workers", overdue_key(DueDag("etl", ago(400))), queued_key("i"))
        }
    )
    everything = len(found(seen(**see), lasting))
    lax = {"failure_rate": 0.5, "min_ended_runs": 11}
    for each in fields(Thresholds):
        if each.name == "window_hours":
            continue
        moved = Thresholds(**{each.name: lax.get(each.name, 401)})
        assert len(found(seen(**see), lasting, moved)) < everything, each.name


def test_no_label_of_any_finding_is_another_one_at_the_next_run(watch):
    see = {
        "all_runs": Runs(0, 9, "run-1"),
        "runs": {"d": Runs(0, 9, "run-1")},
        "failing_tasks": (FailingTask("d", "t", 9, "run-1"),),
        "queued": (QueuedTask("i", "d", "t", "run-1", "q", ago(999)),),
        "due": (DueDag("d", ago(999)),),
    }
    result = found(*watch(see, 2))
    assert len(result) == 4
    assert {name for each in result for name in each.labels} == {"dag_id"}
    assert "run-1" not in str([each.labels for each in result])


def test_counts_have_every_name_also_those_that_were_not_found():
    counts = checks.counts(found(seen(import_problems=(ImportProblem("a", "b"), ImportProblem("c", "d")))))
    assert counts[findings.IMPORT_ERRORS] == 2
    assert set(counts) == set(findings.ALERT_NAMES)
    assert sum(counts.values()) == 2


def test_a_minute_is_the_interval_that_the_dag_has():
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
def test_a_task_that_its_pool_never_takes_is_found(task, pools, figures):
    (finding,) = found(seen(scheduled=(task,), pools=pools))
    assert (finding.alertname, finding.team) == (findings.TASKS_UNSCHEDULABLE, "data")
    assert finding.labels == {"dag_id": "etl", "pool_name": task.pool}
    assert [figure for figure in figures if figure not in finding.summary] == []
    assert finding.run_url == "/dags/etl/runs/r"


def test_a_dag_without_active_tasks_is_found():
    (finding,) = found(seen(scheduled=(waiting(),), pools=(Pool("default_pool", 9, 9, 0),), blocked_dags={"etl"}))
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
def test_a_task_that_merely_waits_is_not_unschedulable(task, pool):
    assert found(seen(scheduled=(task,), pools=(pool,))) == []


def test_many_tasks_of_a_dag_and_pool_are_one_finding():
    tasks = [waiting("mapped", pool="gone") for _ in range(40)]
    tasks += [waiting(f"t{number}", pool="gone") for number in range(20)]
    tasks += [waiting("a", dag="other", pool="gone"), waiting("wide", pool="ml_training", slots=3)]
    result = found(seen(scheduled=tuple(tasks), pools=(NARROW,)))
    assert [(each.labels["dag_id"], each.labels["pool_name"]) for each in result] == [
        ("etl", "gone"),
        ("etl", "ml_training"),
        ("other", "gone"),
    ]
    assert "21 tasks" in result[0].summary
    assert "60 instances" in result[0].summary
    assert "mapped (40)" in result[0].description
    assert len(result[0].description) < 1000
