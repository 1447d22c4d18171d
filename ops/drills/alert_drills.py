"""From a fault to the message that people read, and to the one that says it is over; and nothing beside it.

What `./ops/stack drill --alarms` shows, and alerting/detection.md keeps.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ops import compose
from ops.clients import alertmanager, slack_stub
from ops.clients.prometheus import is_settled
from ops.drills import faults
from ops.drills.catalogue import Victim, every, one
from ops.drills.runner import QUIET_SECONDS, containers
from ops.errors import StackError
from ops.markdown_table import markdown_table, table_rows
from ops.project import ROOT
from ops.status import all_ready
from ops.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ops.clients.slack_stub import Message
    from ops.drills.faults import FaultKind
    from ops.project import Project

PAGE_SECONDS: Final = 60.0
"""From the fault to the message, for what hits users."""
TICKET_SECONDS: Final = 270.0
"""The same for what can wait: the rule's three minutes of patience, and a page's minute and a half."""
RESOLVED_SECONDS: Final = 90.0
"""From the mend to the message that says so, for pages."""
TICKET_RESOLVED_SECONDS: Final = 150.0


@dataclass(frozen=True)
class Expected:
    """One message that people must get.

    Attributes:
        alert: Its name.
        label: A label and its value that tell it from others of the name; empty for any.
        within: Seconds from the fault.
        resolved_within: Seconds from the mend until its end is told.
    """

    alert: str
    label: tuple[str, str] | None = None
    within: float = PAGE_SECONDS
    resolved_within: float = RESOLVED_SECONDS

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.alert} ({'='.join(self.label)})" if self.label else self.alert

    def is_in(self, message: Message) -> bool:
        """Whether a message is about it."""
        return message.alert == self.alert and (
            self.label is None or message.labels.get(self.label[0]) == self.label[1]
        )


@dataclass(frozen=True)
class Alarm:
    """One fault, and all the messages that it may send.

    Attributes:
        name: On the command line.
        victims: Struck at once.
        fault: How; it lasts until all that is expected has come.
        expected: Each must come, and nothing else may.
    """

    name: str
    victims: tuple[Victim, ...]
    fault: FaultKind
    expected: tuple[Expected, ...]


def gone(component: str) -> Expected:
    """No instance of it is left."""
    return Expected("AirflowComponentGone", ("component", component))


def fewer(component: str) -> Expected:
    """Some are."""
    return ticket("AirflowComponentDown", "component", component)


def ticket(alert: str, label: str = "", value: str = "") -> Expected:
    """What can wait."""
    return Expected(alert, (label, value) if label else None, TICKET_SECONDS, TICKET_RESOLVED_SECONDS)


ALARMS: Final = (
    Alarm("postgres", one("postgres"), "kill", (Expected("PostgresDown"),)),
    Alarm("postgres-frozen", one("postgres"), "freeze", (Expected("PostgresDown"),)),
    Alarm("redis", one("redis"), "kill", (Expected("RedisDown"),)),
    Alarm("redis-frozen", one("redis"), "freeze", (Expected("RedisDown"),)),
    Alarm("gateway", one("gateway"), "kill", (Expected("GatewayDown"),)),
    Alarm("schedulers", every("scheduler"), "kill", (gone("scheduler"),)),
    Alarm("workers", every("worker"), "kill", (gone("worker"),)),
    Alarm("api-servers", every("api-server"), "kill", (gone("api-server"),)),
    Alarm("execution-apis", every("execution-api"), "kill", (gone("execution-api"),)),
    # Those that have nothing to do with each other, side by side.
    Alarm(
        "singles",
        (Victim("dag-processor"), Victim("triggerer")),
        "kill",
        (gone("dag-processor"), gone("triggerer")),
    ),
    Alarm(
        "one-of-two",
        (
            Victim("scheduler"),
            Victim("worker"),
            Victim("api-server"),
            Victim("execution-api"),
            Victim("alertmanager-1"),
        ),
        "kill",
        (
            *(fewer(component) for component in ("scheduler", "worker", "api-server", "execution-api")),
            ticket("AlertmanagerDown"),
        ),
    ),
    # Before the others: Prometheus tells of ended alerts for a quarter of an hour, and Alertmanager then repeats them
    # in the messages of their group, which has no label of its own for each.
    Alarm("statsd-exporter", one("statsd-exporter"), "kill", (ticket("TargetDown", "job", "statsd-exporter"),)),
    Alarm(
        "telemetry",
        # One message tells of them all.
        tuple(map(Victim, ("otel-collector", "cadvisor", "postgres-exporter", "redis-exporter"))),
        "kill",
        (ticket("TargetDown"),),
    ),
)


@dataclass
class Heard:
    """What came of one alarm.

    Attributes:
        alarm: Which.
        fired: Seconds from the fault to each message.
        resolved: Seconds from the mend to the message that each is over.
        broken: Every promise that was not kept, in words.
    """

    alarm: Alarm
    fired: dict[str, float] = field(default_factory=dict)
    resolved: dict[str, float] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)


def raise_alarm(alarm: Alarm, project: Project, settings: Mapping[str, str], report: Callable[[str], None]) -> Heard:
    """Strikes, waits for the messages, mends, and waits for their end.

    Raises:
        StackError: The stack is not whole and quiet before it, so that nothing could be said.
    """
    model = compose.config(project)

    def whole() -> bool:
        return all_ready(model)

    wait(whole, QUIET_SECONDS, "every service is healthy", report)
    quiet = "no page fires, and nothing is muted for an earlier one"
    wait(lambda: is_settled(settings), QUIET_SECONDS, quiet, report)
    earlier = firing_now(settings)
    victims = containers(settings["COMPOSE_PROJECT_NAME"], alarm.victims)
    heard = Heard(alarm)

    struck = time.time()
    report(f"{alarm.name}: {alarm.fault} {', '.join(victims)}")
    heal = faults.strike(alarm.fault, victims)
    try:
        listen(alarm, settings, heard.fired, struck, report, firing=True)
    finally:
        heal()
    mended = time.time()
    listen(alarm, settings, heard.resolved, mended, report, firing=False)
    wait(whole, QUIET_SECONDS, "every service is healthy again", report)
    since = [message for message in slack_stub.messages(settings) if message.received >= struck]
    judge(heard, [message for message in since if message.alert not in earlier])
    return heard


def listen(
    alarm: Alarm,
    settings: Mapping[str, str],
    heard: dict[str, float],
    since: float,
    report: Callable[[str], None],
    *,
    firing: bool,
) -> None:
    """Notes when each expected message came, until all have or the last of their times is up."""
    patience = 30.0 + max(expected.within if firing else expected.resolved_within for expected in alarm.expected)

    def all_heard() -> bool:
        for message in slack_stub.messages(settings):
            for expected in alarm.expected:
                if message.firing == firing and message.received >= since and expected.is_in(message):
                    heard.setdefault(expected.name, message.received - since)
        return len(heard) == len(alarm.expected)

    try:
        wait(all_heard, patience, f"{'' if firing else 'the end of '}what is expected was told", report)
    except StackError as error:
        report(error.what)


def firing_now(settings: Mapping[str, str]) -> frozenset[str]:
    """The names of alerts that fire already: what is said of them later is not this fault's."""
    alerts = alertmanager.any_that_answers(alertmanager.both(settings)).alerts()
    return frozenset(alert["labels"]["alertname"] for alert in alerts)


def judge(heard: Heard, messages: list[Message]) -> None:
    """Notes every promise that was not kept."""
    for expected in heard.alarm.expected:
        for times, limit, what in (
            (heard.fired, expected.within, "told"),
            (heard.resolved, expected.resolved_within, "over"),
        ):
            if expected.name not in times:
                heard.broken.append(f"{expected.name}: nobody heard that it is {what}")
            elif times[expected.name] > limit:
                told = f"{what} after {times[expected.name]:.0f} s, promised within {limit:.0f} s"
                heard.broken.append(f"{expected.name}: {told}")
    expected_ones = heard.alarm.expected
    needless = {m.title for m in messages if m.firing and not any(wanted.is_in(m) for wanted in expected_ones)}
    heard.broken += [f"needless: {title}" for title in sorted(needless)]


HEADINGS = ("fault", "message", "told after", "over after", "kept")


def rows(all_heard: list[Heard]) -> list[tuple[str, ...]]:
    """A row a message."""
    found: list[tuple[str, ...]] = []
    for heard in all_heard:
        services = ", ".join(
            f"{'all of ' if victim.count is None else ''}{victim.service}" for victim in heard.alarm.victims
        )
        for expected in heard.alarm.expected:
            fired, resolved = heard.fired.get(expected.name), heard.resolved.get(expected.name)
            found.append(
                (
                    f"{heard.alarm.fault} {services}",
                    expected.name,
                    "never" if fired is None else f"{fired:.0f} s",
                    "never" if resolved is None else f"{resolved:.0f} s",
                    "; ".join(heard.broken) or "yes",
                )
            )
    return found


PAGE: Final = ROOT / "alerting/detection.md"
INTRODUCTION: Final = """\
# From fault to Slack

How long it took, on a stack at rest, from a fault to the message in Slack, and from its mend (the container's start) to
the message that it is over. Each fault lasted until its message had come; no other message came. Written by
`./ops/stack drill --alarms --all --write`, on {machine}.

"""


def document(all_heard: list[Heard], old: str, machine: str) -> str:
    """The page with what was heard, beside what an earlier page says of the other alarms.

    Args:
        all_heard: What was heard now.
        old: The page as it was; empty when there is none.
        machine: What it was measured on, for people.
    """
    now = {row[:2]: row for row in rows(all_heard)}
    known = {row[:2]: row for row in table_rows(old)} | now
    order = [row[:2] for row in rows([Heard(alarm) for alarm in ALARMS])]
    return INTRODUCTION.format(machine=machine) + markdown_table(
        HEADINGS, [known[key] for key in order if key in known]
    )
