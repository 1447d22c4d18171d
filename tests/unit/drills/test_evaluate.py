"""The evaluation of a drill against its promises."""

from __future__ import annotations

import pytest

from ops.clients.slack_stub import Message
from ops.drills import report, runner
from ops.drills.catalogue import LOAD, LONG_TASKS, Drill, all_nodes, one_instance, primary, replica
from ops.drills.evaluate import FaultTimes, Notification, Observation, Outcome, evaluate
from ops.drills.ledger import Entry
from ops.markdown_table import markdown_table, table_rows

DRILL = Drill("scheduler-crash", one_instance("scheduler"), "crash")
WORKER = Drill("worker-crash", one_instance("worker"), "crash", 0, "rerun", 100)
TARGET = "v" * 64
HOST = TARGET[:12]


def by_time(*entries: Entry) -> list[Entry]:
    return sorted(entries, key=lambda entry: entry.at)


def stream(*, without: tuple[tuple[str, int], ...] = (), pause: float = 0.0) -> list[Entry]:
    """Return the entries of all tasks of the load, one completion a second, with a pause after the tenth."""
    entries = []
    for index in range(int(LOAD["short"])):
        end = index + (pause if index >= 10 else 0.0)
        entries += [Entry("short", index, 1, "start", "w", end - 0.5), Entry("short", index, 1, "end", "w", end)]
    for index in range(int(LOAD["long"])):
        entries += [Entry("long", index, 1, "start", "w", 0.0), Entry("long", index, 1, "end", "w", 60.0)]
    return by_time(*(entry for entry in entries if entry.key not in without))


def second_try(task: str, index: int, start: float, end: float) -> list[Entry]:
    return [Entry(task, index, 2, "start", "w", start), Entry(task, index, 2, "end", "w", end)]


def outcome(drill: Drill = DRILL, entries: list[Entry] | None = None, **changes) -> Outcome:
    observed = {
        "entries": stream() if entries is None else entries,
        "run_state": "success",
        "targets": ["s" * 12],
        "times": FaultTimes(5.0, 5.0, 5.0),
        "healthy_after": 20.0,
        "alerts": {},
        **changes,
    }
    return evaluate(drill, Observation(**observed))


def message(alert: str, *, firing: bool = True) -> Message:
    return Message(0.0, firing, alert, {}, alert, "")


def test_drill_without_losses_keeps_its_promises():
    assert outcome().broken == ()
    assert outcome().recovery == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("changes", "figures"),
    [
        ({"run_state": "failed"}, ["failed"]),
        ({"entries": stream(without=(("short", 7),))}, ["1", "lost"]),
        ({"entries": [*stream(), Entry("short", 3, 2, "end", "w", 200.0)]}, ["1", "twice"]),
        ({"entries": [*stream(), Entry("short", 3, 2, "start", "w", 2.7)]}, ["1", "twice at the same time"]),
        ({"entries": stream(pause=6.0)}, ["7.0 s", "5 s"]),
        ({"blocked_slots": 2}, ["2 slots"]),
        ({"healthy_after": None}, ["120 s"]),
        ({"alerts": {"GatewayDown": Notification(3.0, True)}}, ["GatewayDown"]),
    ],
)
def test_broken_promise_is_named_with_its_figures(changes, figures):
    assert any(all(figure in broken for figure in figures) for broken in outcome(**changes).broken)


@pytest.mark.parametrize(("completed", "is_kept"), [(4.5, True), (3.0, False)])
def test_only_an_unreported_completion_may_repeat(completed, is_kept):
    """A worker that crashes within a second of a task's last statement has not reported its success."""
    lost = Entry("long", 0, 1, "start", HOST, 0.0)
    finished = [Entry("short", 3, 1, "start", HOST, completed - 1), Entry("short", 3, 1, "end", HOST, completed)]
    entries = by_time(
        *stream(without=(("long", 0), ("short", 3))),
        lost,
        *finished,
        *second_try("long", 0, 40.0, 100.0),
        *second_try("short", 3, 40.0, 41.0),
    )
    result = outcome(WORKER, entries, targets=[TARGET], blocked_slots=0)
    assert result.tasks_doubled == 1
    assert any("twice" in broken for broken in result.broken) is not is_kept
    assert any("attempts lost" in broken for broken in result.broken) is not is_kept


def test_a_completion_on_a_frozen_worker_may_not_repeat():
    """A frozen worker keeps its report, and sends it after the revert."""
    finished = [Entry("short", 3, 1, "start", HOST, 3.5), Entry("short", 3, 1, "end", HOST, 4.5)]
    entries = by_time(*stream(without=(("short", 3),)), *finished, *second_try("short", 3, 40.0, 41.0))
    result = outcome(
        Drill("worker-freeze", one_instance("worker"), "freeze", 60, "rerun", 100), entries, targets=[TARGET]
    )
    assert any("twice" in broken for broken in result.broken)


def test_only_tries_on_a_target_may_be_lost():
    lost = Entry("long", 0, 1, "start", HOST, 0.0)
    entries = by_time(*stream(without=(("long", 0),)), lost, *second_try("long", 0, 40.0, 100.0))
    assert outcome(WORKER, entries, targets=[TARGET]).broken == ()
    assert "1 attempts lost, 0 allowed" in outcome(DRILL, entries).broken


def test_silent_try_on_a_target_may_be_lost():
    entries = by_time(
        *stream(without=(("long", 0), ("short", 7))),
        Entry("long", 0, 1, "start", HOST, 0.0),
        *second_try("long", 0, 40.0, 100.0),
        *second_try("short", 7, 6.5, 7.0),
    )
    assert outcome(WORKER, entries, targets=[TARGET], silent_tries=1).broken == ()
    assert "2 attempts lost, 1 allowed" in outcome(WORKER, entries, targets=[TARGET]).broken


def test_task_that_starts_during_the_injection_may_be_lost():
    entries = by_time(
        *stream(without=(("long", 0),)),
        Entry("long", 0, 1, "start", HOST, 5.2),
        *second_try("long", 0, 45.0, 100.0),
    )
    result = outcome(WORKER, entries, targets=[TARGET], times=FaultTimes(5.0, 5.5, 5.5))
    assert result.broken == ()
    assert result.recovery == pytest.approx(40.0)


def test_worker_without_a_running_task_proves_nothing():
    assert any("proves nothing" in broken for broken in outcome(WORKER, targets=[TARGET]).broken)


def test_recovery_after_the_revert_ignores_the_fault_itself():
    drill = Drill("gone", one_instance("scheduler"), "kill", 6, "after revert")
    assert outcome(drill, stream(pause=6.0), times=FaultTimes(9.5, 9.5, 15.5)).recovery == pytest.approx(1.0)


def test_expected_alert_must_fire_and_be_resolved():
    drill = Drill("gone", one_instance("redis"), "kill", 60, alert="RedisDown")
    [missing] = outcome(drill).broken
    [unresolved] = outcome(drill, alerts={"RedisDown": Notification(40.0, False)}).broken
    assert "RedisDown" in missing
    assert "RedisDown" in unresolved
    assert outcome(drill, alerts={"RedisDown": Notification(40.0, True)}).broken == ()


def test_allowed_alert_may_fire_and_others_may_not():
    drill = Drill("worker", one_instance("worker"), "freeze", 120, allowed_alerts=("AirflowTasksLost",))
    assert outcome(drill).broken == ()
    assert outcome(drill, alerts={"AirflowTasksLost": Notification(70.0, False)}).broken == ()
    [unexpected] = outcome(drill, alerts={"RedisDown": Notification(40.0, True)}).broken
    assert "RedisDown" in unexpected


def test_unreadable_notifications_break_no_promise():
    drill = Drill("gone", one_instance("redis"), "kill", 60, alert="RedisDown")
    assert outcome(drill, alerts=None).broken == ()


def test_notification_of_an_earlier_fault_is_ignored():
    messages = [message("RedisDown", firing=False), message("ApiErrors")]
    assert runner.notifications_by_alert(messages, 0.0, None, frozenset({"ApiErrors"})) == {}
    assert runner.notifications_by_alert(messages, 0.0, None, frozenset()) == {"ApiErrors": Notification(0.0, False)}


def test_expected_alert_counts_even_if_it_was_pending_before():
    messages = [message("RedisDown"), message("RedisDown", firing=False)]
    by_alert = runner.notifications_by_alert(messages, 0.0, "RedisDown", frozenset({"RedisDown"}))
    assert by_alert == {"RedisDown": Notification(0.0, True)}


@pytest.mark.parametrize(
    ("targets", "fault", "allowed"),
    [
        (primary("patroni"), "crash", True),
        (all_nodes("redis"), "kill", True),
        (primary("redis"), "slow", False),
        (replica("patroni"), "crash", False),
        (one_instance("etcd-1"), "freeze", False),
        (one_instance("scheduler"), "freeze", False),
    ],
)
def test_promotion_is_allowed_only_if_a_primary_goes_down(targets, fault, allowed):
    assert (outcome(Drill("x", targets, fault), promoted=["patroni-2"]).broken == ()) == allowed


def test_promotion_of_a_lagging_replica_breaks_a_promise():
    drill = Drill("x", primary("patroni"), "kill", 45, lagging=replica("patroni"))
    [broken] = outcome(drill, promoted=["patroni-2"]).broken
    assert "patroni-2" in broken


def test_load_of_long_tasks_only_is_counted_as_such():
    drill = Drill("x", one_instance("worker"), "crash", 0, "rerun", 100, long_tasks_only=True)
    entries = [
        Entry("long", index, 1, event, HOST, at)
        for event, at in (("start", 0.0), ("end", 45.0))
        for index in range(LONG_TASKS)
    ]
    assert outcome(drill, entries, targets=[TARGET]).tasks_lost == 0
    assert outcome(drill, entries[:-1], targets=[TARGET]).tasks_lost == 1


def test_table_has_median_worst_and_every_broken_promise():
    outcomes = [outcome(entries=stream(pause=pause)) for pause in (0.0, 1.0, 6.0)]
    ((fault, recovery, promised, *_, kept),) = report.rows(outcomes)
    assert (fault, recovery, promised) == ("crash one scheduler", "2.0 s (7.0 s)", "5 s")
    assert "7.0 s" in kept
    table = markdown_table(report.HEADINGS, report.rows(outcomes))
    assert table_rows(table) == report.rows(outcomes)
