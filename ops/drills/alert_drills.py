"""Alert drills: the time from a fault to its notification, and from the revert to the resolved one.

No other alert may fire. `./ops/stack drill --alerts` runs them; alerting/detection.md holds the results.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ops import compose
from ops.clients import alertmanager, slack_stub
from ops.clients.prometheus import is_settled
from ops.drills import faults
from ops.drills.catalogue import Target, all_instances, one_instance
from ops.drills.runner import QUIET_SECONDS, target_containers
from ops.errors import StackError
from ops.markdown_table import markdown_table, table_rows
from ops.project import ROOT
from ops.status import all_ready
from ops.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ops.clients.slack_stub import Message
    from ops.drills.faults import FaultKind
    from ops.project import Project

PAGE_SECONDS: Final = 60.0
"""Limit from the fault to the notification, for an alert that pages."""
TICKET_SECONDS: Final = 270.0
"""Limit from the fault to the notification, for a ticket: three minutes of the rule's `for`, and 90 s."""
PAGE_RESOLVED_SECONDS: Final = 90.0
"""Limit from the revert to the resolved notification, for an alert that pages."""
TICKET_RESOLVED_SECONDS: Final = 150.0
EXTRA_SECONDS: Final = 30.0
"""Wait beyond the limits, to measure a notification that is late."""


@dataclass(frozen=True)
class ExpectedAlert:
    """One alert that must fire and be resolved.

    Attributes:
        alert: The alert's name.
        label: A label and its value that distinguish it from others of that name; None for any.
        within: Limit from the fault to the notification, seconds.
        resolved_within: Limit from the revert to the resolved notification, seconds.
    """

    alert: str
    label: tuple[str, str] | None = None
    within: float = PAGE_SECONDS
    resolved_within: float = PAGE_RESOLVED_SECONDS

    @property
    def display_name(self) -> str:
        """The alert as it is shown in tables, such as `TargetDown (job=statsd-exporter)`."""
        return f"{self.alert} ({'='.join(self.label)})" if self.label else self.alert

    def matches(self, message: Message) -> bool:
        """Return whether a message is about this alert."""
        return message.alert == self.alert and (
            self.label is None or message.labels.get(self.label[0]) == self.label[1]
        )


@dataclass(frozen=True)
class AlertDrill:
    """One fault, and all alerts that it may cause.

    Attributes:
        name: The name on the command line.
        targets: All get the fault at the same time.
        fault: The kind of fault; it lasts until all expected notifications have arrived.
        expected: Each must fire and be resolved, and no other alert may fire.
    """

    name: str
    targets: tuple[Target, ...]
    fault: FaultKind
    expected: tuple[ExpectedAlert, ...]


def component_gone(component: str) -> ExpectedAlert:
    """Return the page for a component that has no instance left."""
    return ExpectedAlert("AirflowComponentGone", ("component", component))


def component_down(component: str) -> ExpectedAlert:
    """Return the ticket for a component that has too few instances."""
    return ticket("AirflowComponentDown", "component", component)


def ticket(alert: str, label: str = "", value: str = "") -> ExpectedAlert:
    """Return an expected alert with the limits of a ticket."""
    return ExpectedAlert(alert, (label, value) if label else None, TICKET_SECONDS, TICKET_RESOLVED_SECONDS)


ALERT_DRILLS: Final = (
    AlertDrill("postgres", one_instance("postgres"), "kill", (ExpectedAlert("PostgresDown"),)),
    AlertDrill("postgres-frozen", one_instance("postgres"), "freeze", (ExpectedAlert("PostgresDown"),)),
    AlertDrill("redis", one_instance("redis"), "kill", (ExpectedAlert("RedisDown"),)),
    AlertDrill("redis-frozen", one_instance("redis"), "freeze", (ExpectedAlert("RedisDown"),)),
    AlertDrill("gateway", one_instance("gateway"), "kill", (ExpectedAlert("GatewayDown"),)),
    AlertDrill("schedulers", all_instances("scheduler"), "kill", (component_gone("scheduler"),)),
    AlertDrill("workers", all_instances("worker"), "kill", (component_gone("worker"),)),
    AlertDrill("api-servers", all_instances("api-server"), "kill", (component_gone("api-server"),)),
    AlertDrill("execution-apis", all_instances("execution-api"), "kill", (component_gone("execution-api"),)),
    # Independent components, at the same time.
    AlertDrill(
        "singles",
        (Target("dag-processor"), Target("triggerer")),
        "kill",
        (component_gone("dag-processor"), component_gone("triggerer")),
    ),
    AlertDrill(
        "one-of-two",
        (
            Target("scheduler"),
            Target("worker"),
            Target("api-server"),
            Target("execution-api"),
            Target("alertmanager-1"),
        ),
        "kill",
        (
            *(component_down(component) for component in ("scheduler", "worker", "api-server", "execution-api")),
            ticket("AlertmanagerDown"),
        ),
    ),
    # Before `telemetry`: Prometheus sends resolved alerts for 15 minutes, and Alertmanager repeats them in the messages
    # of their group. No label distinguishes the repeated alerts.
    AlertDrill(
        "statsd-exporter", one_instance("statsd-exporter"), "kill", (ticket("TargetDown", "job", "statsd-exporter"),)
    ),
    AlertDrill(
        "telemetry",
        # One message reports all of them.
        tuple(map(Target, ("otel-collector", "cadvisor", "postgres-exporter", "redis-exporter"))),
        "kill",
        (ticket("TargetDown"),),
    ),
)


@dataclass
class AlertOutcome:
    """The result of one alert drill.

    Attributes:
        drill: The drill.
        fired: Seconds from the fault to each notification, by the alert's display name.
        resolved: Seconds from the revert to each resolved notification.
        broken: A sentence for each broken promise.
    """

    drill: AlertDrill
    fired: dict[str, float] = field(default_factory=dict)
    resolved: dict[str, float] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)


def run_alert_drill(
    drill: AlertDrill, project: Project, settings: Mapping[str, str], report: Callable[[str], None]
) -> AlertOutcome:
    """Inject the fault, wait for the notifications, revert it, and wait for the resolved ones.

    Raises:
        StackError: The stack did not become healthy and quiet before the fault, or healthy after it.
    """
    model = compose.config(project)

    def is_ready() -> bool:
        return all_ready(model)

    wait(is_ready, QUIET_SECONDS, "every service is healthy", report)
    quiet = "no page fires, and no alert is inhibited after an earlier one"
    wait(lambda: is_settled(settings), QUIET_SECONDS, quiet, report)
    earlier = firing_alerts(settings)
    targets = target_containers(settings["COMPOSE_PROJECT_NAME"], drill.targets)
    outcome = AlertOutcome(drill)

    injected = time.time()
    report(f"{drill.name}: {drill.fault} {', '.join(targets)}")
    revert = faults.inject(drill.fault, targets)
    try:
        record_notifications(drill, settings, outcome.fired, injected, report, firing=True)
    finally:
        revert()
    reverted = time.time()
    record_notifications(drill, settings, outcome.resolved, reverted, report, firing=False)
    wait(is_ready, QUIET_SECONDS, "every service is healthy again", report)
    messages = [message for message in slack_stub.messages(settings) if message.received >= injected]
    outcome.broken += broken_promises(outcome, [message for message in messages if message.alert not in earlier])
    return outcome


def record_notifications(
    drill: AlertDrill,
    settings: Mapping[str, str],
    times: dict[str, float],
    since: float,
    report: Callable[[str], None],
    *,
    firing: bool,
) -> None:
    """Record when each expected notification arrived, until all have or the longest limit is over.

    Args:
        drill: The drill.
        settings: The stack's .env.
        times: Gets the seconds from `since`, by the alert's display name.
        since: When the fault was injected or reverted, seconds since the epoch.
        report: Prints a line of progress.
        firing: Whether firing notifications are expected; else resolved ones.
    """
    limits = [expected.within if firing else expected.resolved_within for expected in drill.expected]

    def have_all_arrived() -> bool:
        for message in slack_stub.messages(settings):
            for expected in drill.expected:
                if message.firing == firing and message.received >= since and expected.matches(message):
                    times.setdefault(expected.display_name, message.received - since)
        return len(times) == len(drill.expected)

    kind = "firing" if firing else "resolved"
    try:
        wait(have_all_arrived, EXTRA_SECONDS + max(limits), f"every {kind} notification has arrived", report)
    except StackError as error:
        report(error.what)


def firing_alerts(settings: Mapping[str, str]) -> frozenset[str]:
    """Return the names of the alerts that fire: later notifications of them do not belong to this fault."""
    alerts = alertmanager.any_that_answers(alertmanager.both(settings)).alerts()
    return frozenset(alert["labels"]["alertname"] for alert in alerts)


def broken_promises(outcome: AlertOutcome, messages: Sequence[Message]) -> Iterator[str]:
    """Yield a sentence for each broken promise.

    Args:
        outcome: The outcome with its times.
        messages: All messages since the fault, without those of earlier alerts.
    """
    expected_alerts = outcome.drill.expected
    for expected in expected_alerts:
        name = expected.display_name
        for state, times, limit in (
            ("fired", outcome.fired, expected.within),
            ("resolved", outcome.resolved, expected.resolved_within),
        ):
            if name not in times:
                yield f"{name}: not {state}"
            elif times[name] > limit:
                yield f"{name}: {state} after {times[name]:.0f} s, promised within {limit:.0f} s"
    unexpected = {
        message.title
        for message in messages
        if message.firing and not any(expected.matches(message) for expected in expected_alerts)
    }
    yield from (f"unexpected alert: {title}" for title in sorted(unexpected))


HEADINGS = ("fault", "alert", "fired after", "resolved after", "promises kept")


def rows(outcomes: Sequence[AlertOutcome]) -> list[tuple[str, ...]]:
    """Return one row for each expected alert; the columns are HEADINGS."""
    table: list[tuple[str, ...]] = []
    for outcome in outcomes:
        services = ", ".join(
            f"{'all of ' if target.count is None else ''}{target.service}" for target in outcome.drill.targets
        )
        for expected in outcome.drill.expected:
            fired, resolved = (times.get(expected.display_name) for times in (outcome.fired, outcome.resolved))
            table.append(
                (
                    f"{outcome.drill.fault} {services}",
                    expected.display_name,
                    "never" if fired is None else f"{fired:.0f} s",
                    "never" if resolved is None else f"{resolved:.0f} s",
                    "; ".join(outcome.broken) or "yes",
                )
            )
    return table


PAGE: Final = ROOT / "alerting/detection.md"
INTRODUCTION: Final = """\
# From fault to Slack

The time from a fault to its notification in Slack, and from the revert (the container's start) to the resolved
notification. The stack was idle. Each fault lasted until its notification had arrived, and no other alert fired.
Measured on {machine}; `./ops/stack drill --alerts --all --write` writes this page.

"""


def document(outcomes: Sequence[AlertOutcome], old: str, machine: str) -> str:
    """Return the page with new outcomes, and the rows of the old page for all other alert drills.

    Args:
        outcomes: The new outcomes.
        old: The old page; empty if there is none.
        machine: The machine, such as `2 cores and 24 GiB`.
    """
    new = {row[:2]: row for row in rows(outcomes)}
    recorded = {row[:2]: row for row in table_rows(old)} | new
    order = [row[:2] for row in rows([AlertOutcome(drill) for drill in ALERT_DRILLS])]
    return INTRODUCTION.format(machine=machine) + markdown_table(
        HEADINGS, [recorded[key] for key in order if key in recorded]
    )
