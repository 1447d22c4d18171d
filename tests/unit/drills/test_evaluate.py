"""A drill's outcome against its promises, and an alarm's messages against those expected."""

from __future__ import annotations

import pytest

from ops.clients.slack_stub import Message, message_of
from ops.drills import alert_drills, report, runner
from ops.drills.alert_drills import Alarm, Expected, Heard
from ops.drills.catalogue import Drill, nodes, one, primary, replica
from ops.drills.ledger import Entry
from ops.markdown_table import markdown_table, table_rows

DRILL = Drill("scheduler-crash", one("scheduler"), "crash", 0, "interruption", 5)
WORKER = Drill("worker-crash", one("worker"), "crash", 0, "run again", 100, own_attempts=True)


def stream(*, without: frozenset[int] = frozenset(), pause: float = 0.0) -> list[Entry]:
    """All tasks of the load, done one a second; with a pause after the tenth."""
    entries = []
    for number in range(int(runner.LOAD["short"])):
        if number not in without:
            end = number + (pause if number >= 10 else 0.0)
            entries += [Entry("short", number, 1, "start", "w", end - 0.5), Entry("short", number, 1, "end", "w", end)]
    for number in range(int(runner.LOAD["long"])):
        entries += [Entry("long", number, 1, "start", "w", 0.0), Entry("long", number, 1, "end", "w", 60.0)]
    return sorted(entries, key=lambda entry: entry.at)


def judged(drill: Drill = DRILL, entries: list[Entry] | None = None, **changes) -> runner.Outcome:
    found = {
        "entries": stream() if entries is None else entries, "ended": "success", "victims": ["s" * 12], "struck": 5.0,
        "landed": 5.0, "healed": 5.0, "whole_again": 20.0, "alerts": {}, **changes,
    }  # fmt: skip
    return runner.judge(drill, **found)


def test_a_drill_in_which_nothing_was_lost_keeps_its_promises():
    outcome = judged()
    assert outcome.broken == ()
    assert outcome.recovery == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ended": "failed"}, "the run is failed"),
        ({"entries": stream(without=frozenset({7}))}, "1 tasks lost"),
        ({"entries": [*stream(), Entry("short", 3, 2, "end", "w", 200.0)]}, "1 tasks done twice"),
        ({"entries": [*stream(), Entry("short", 3, 2, "start", "w", 2.7)]}, "1 tasks ran twice at once"),
        ({"entries": stream(pause=6.0)}, "recovery 7.0 s, promised within 5 s"),
        ({"blocked": 2}, "2 slots blocked by suspended tasks"),
        ({"whole_again": None}, "not every service healthy 120 s after"),
        ({"alerts": {"GatewayDown": (3.0, True)}}, "needless alerts: GatewayDown"),
    ],
)
def test_each_promise_that_is_broken_is_told(changes, said):
    assert any(said in broken for broken in judged(**changes).broken)


def test_only_a_victims_own_attempts_may_be_lost():
    lost = [Entry("long", 0, 1, "start", "v" * 12, 0.0), Entry("long", 0, 2, "start", "w", 40.0)]
    entries = sorted(
        [entry for entry in stream() if (entry.task, entry.number) != ("long", 0)]
        + [*lost, Entry("long", 0, 2, "end", "w", 100.0)],
        key=lambda entry: entry.at,
    )
    assert judged(WORKER, entries, victims=["v" * 64]).broken == ()
    assert any("1 attempts lost, 0 allowed" in broken for broken in judged(DRILL, entries).broken)


def test_an_attempt_that_a_victim_was_given_and_had_not_begun_is_its_own_too():
    entries = sorted(
        [
            *(entry for entry in stream() if (entry.task, entry.number) not in (("long", 0), ("short", 7))),
            Entry("long", 0, 1, "start", "v" * 12, 0.0),
            *(Entry("long", 0, 2, event, "w", at) for event, at in (("start", 40.0), ("end", 100.0))),
            *(Entry("short", 7, 2, event, "w", at) for event, at in (("start", 6.5), ("end", 7.0))),
        ],
        key=lambda entry: entry.at,
    )
    assert judged(WORKER, entries, victims=["v" * 64], silent_here=1).broken == ()
    assert any("2 attempts lost, 1 allowed" in broken for broken in judged(WORKER, entries, victims=["v" * 64]).broken)


def test_what_a_victim_began_while_it_was_being_struck_is_its_own_too():
    entries = sorted(
        [
            *(entry for entry in stream() if (entry.task, entry.number) != ("long", 0)),
            Entry("long", 0, 1, "start", "v" * 12, 5.2),
            *(Entry("long", 0, 2, event, "w", at) for event, at in (("start", 45.0), ("end", 100.0))),
        ],
        key=lambda entry: entry.at,
    )
    outcome = judged(WORKER, entries, victims=["v" * 64], struck=5.0, landed=5.5)
    assert outcome.broken == ()
    assert outcome.recovery == pytest.approx(40.0)


def test_a_worker_in_which_nothing_ran_proves_nothing():
    assert any("proves nothing" in broken for broken in judged(WORKER, victims=["v" * 64]).broken)


def test_an_alert_that_must_come_must_also_end():
    drill = Drill("gone", one("redis"), "kill", 60, "interruption", 5, alert="RedisDown")
    assert "nobody was told: no RedisDown" in judged(drill).broken
    assert "RedisDown was not resolved" in judged(drill, alerts={"RedisDown": (40.0, False)}).broken
    assert judged(drill, alerts={"RedisDown": (40.0, True)}).broken == ()


def test_an_alert_that_may_come_need_not():
    drill = Drill("worker", one("worker"), "freeze", 120, "interruption", 5, may_alert=("AirflowTasksLost",))
    assert judged(drill).broken == judged(drill, alerts={"AirflowTasksLost": (70.0, False)}).broken == ()
    assert judged(drill, alerts={"RedisDown": (40.0, True)}).broken == ("needless alerts: RedisDown",)


def test_what_is_told_of_an_earlier_fault_is_not_this_ones():
    ends_now, begins_late = message("RedisDown", firing=False), message("ApiErrors")
    assert runner.told([ends_now, begins_late], 0.0, None, frozenset({"ApiErrors"})) == {}
    assert runner.told([ends_now, begins_late], 0.0, None, frozenset()) == {"ApiErrors": (0.0, False)}


def test_the_alert_that_a_drill_waits_for_counts_also_when_it_was_about_to_come_before():
    messages = [message("RedisDown"), message("RedisDown", firing=False)]
    assert runner.told(messages, 0.0, "RedisDown", frozenset({"RedisDown"})) == {"RedisDown": (0.0, True)}


@pytest.mark.parametrize(
    ("victims", "fault", "may"),
    [
        (primary("patroni"), "crash", True),
        (nodes("redis"), "kill", True),
        (primary("redis"), "slow", False),
        (replica("patroni"), "crash", False),
        (one("etcd-1"), "freeze", False),
        (one("scheduler"), "freeze", False),
    ],
)
def test_only_a_primary_that_is_struck_is_replaced(victims, fault, may):
    drill = Drill("x", victims, fault, 0, "interruption", 5)
    said = () if may else ("patroni-2 took over without reason",)
    assert judged(drill, moved=["patroni-2"]).broken == said


def test_a_replica_that_lacks_commits_may_not_take_over():
    drill = Drill("x", primary("patroni"), "kill", 45, "interruption", 5, behind=replica("patroni"))
    assert judged(drill, moved=["patroni-2"]).broken == ("patroni-2 took over without reason",)


def test_a_load_of_long_tasks_alone_is_counted_as_such():
    drill = Drill("x", one("worker"), "crash", 0, "run again", 100, own_attempts=True, only_long=True)
    entries = [
        Entry("long", number, 1, event, "v" * 12, at)
        for event, at in (("start", 0.0), ("end", 45.0))
        for number in range(runner.ONLY_LONG)
    ]
    assert judged(drill, entries, victims=["v" * 64]).tasks_lost == 0
    assert judged(drill, entries[:-1], victims=["v" * 64]).tasks_lost == 1


def test_the_table_has_the_median_the_worst_and_every_broken_promise():
    outcomes = [judged(entries=stream(pause=pause)) for pause in (0.0, 1.0, 6.0)]
    ((fault, recovery, promised, *_, kept),) = report.rows(outcomes)
    assert (fault, recovery, promised) == ("crash one scheduler", "2.0 s (7.0 s)", "5 s")
    assert "recovery 7.0 s" in kept
    table = markdown_table(report.HEADINGS, report.rows(outcomes))
    assert table_rows(table) == report.rows(outcomes)


# --- Alarms


def message(alert: str, *, firing: bool = True, **labels: str) -> Message:
    return Message(0.0, firing, alert, labels, f"{alert} {labels}", "")


def test_a_message_is_read_out_of_what_alertmanager_posts():
    fields = [{"title": "Alert", "value": "GatewayDown"}, {"title": "Labels", "value": "component=a job=b "}]
    payload = {"attachments": [{"title": "[FIRING] Page: gone", "text": "since", "fields": fields}]}
    assert message_of(5, payload) == Message(
        5.0, True, "GatewayDown", {"component": "a", "job": "b"}, "[FIRING] Page: gone", "since"
    )


def test_a_message_that_is_not_alertmanagers_is_no_alert():
    assert message_of(5, {"text": "hello"}).alert == ""


def test_an_alarm_is_kept_when_each_message_came_and_ended_in_time_and_no_other_came():
    expected = Expected("AirflowComponentGone", ("component", "worker"))
    heard = Heard(Alarm("workers", one("worker"), "kill", (expected,)), {expected.name: 50.0}, {expected.name: 80.0})
    alert_drills.judge(heard, [message("AirflowComponentGone", component="worker")])
    assert heard.broken == []


@pytest.mark.parametrize(
    ("fired", "resolved", "others", "said"),
    [
        (None, 80.0, [], "nobody heard that it is told"),
        (61.0, 80.0, [], "told after 61 s, promised within 60 s"),
        (50.0, None, [], "nobody heard that it is over"),
        (50.0, 91.0, [], "over after 91 s, promised within 90 s"),
        (50.0, 80.0, [message("AirflowCanaryLate")], "needless: AirflowCanaryLate"),
        (50.0, 80.0, [message("AirflowComponentGone", component="scheduler")], "needless: AirflowComponentGone"),
    ],
)
def test_each_promise_of_an_alarm_that_is_broken_is_told(fired, resolved, others, said):
    expected = Expected("AirflowComponentGone", ("component", "worker"))
    heard = Heard(
        Alarm("workers", one("worker"), "kill", (expected,)),
        {} if fired is None else {expected.name: fired},
        {} if resolved is None else {expected.name: resolved},
    )
    alert_drills.judge(heard, others)
    assert any(said in broken for broken in heard.broken)


def test_the_page_of_times_keeps_what_other_days_have_measured():
    gateway, redis = (next(one for one in alert_drills.ALARMS if one.name == name) for name in ("gateway", "redis"))
    first = alert_drills.document([Heard(gateway, {"GatewayDown": 38.0}, {"GatewayDown": 29.0})], "", "2 cores")
    second = alert_drills.document([Heard(redis, {"RedisDown": 43.0}, {"RedisDown": 30.0})], first, "2 cores")
    assert table_rows(second) == [
        ("kill redis", "RedisDown", "43 s", "30 s", "yes"),
        ("kill gateway", "GatewayDown", "38 s", "29 s", "yes"),
    ]
    again = alert_drills.document([Heard(gateway, {"GatewayDown": 50.0}, {"GatewayDown": 29.0})], second, "2 cores")
    assert ("kill gateway", "GatewayDown", "50 s", "29 s", "yes") in table_rows(again)
