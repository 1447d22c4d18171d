"""The evaluation of a drill: observations, costs, and broken promises."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from ops.drills import ledger

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ops.drills.catalogue import Drill
    from ops.drills.ledger import Entry, TaskKey


class FaultTimes(NamedTuple):
    """When a fault began, when all targets had it, and when it was reverted, by the ledger's clock."""

    began: float
    injected: float
    reverted: float


class Notification(NamedTuple):
    """The messages about one alert: seconds from the fault to the first, and whether the last reports its end."""

    seconds: float
    is_resolved: bool


@dataclass(frozen=True)
class Observation:
    """The observations of one drill.

    Attributes:
        entries: The ledger's entries of the load's run.
        run_state: The state in which the run ended.
        targets: Docker's ids of the containers that got the fault.
        times: When they got it.
        healthy_after: Seconds from the revert until every service was healthy and every replica in sync; None if
            that took longer than promised.
        alerts: The notifications by alert; None if they cannot be read.
        promoted: The nodes that became primary.
        silent_tries: The number of tries that a target was given and that wrote no entry.
        container_exits: The containers that exited or ran out of memory, if the drill forbids that.
        blocked_slots: The number of worker slots that are still blocked by suspended tasks.
    """

    entries: Sequence[Entry]
    run_state: str
    targets: Sequence[str]
    times: FaultTimes
    healthy_after: float | None
    alerts: Mapping[str, Notification] | None
    promoted: Sequence[str] = ()
    silent_tries: int = 0
    container_exits: Sequence[str] = ()
    blocked_slots: int = 0


@dataclass(frozen=True)
class Outcome:
    """The costs of one drill, and its broken promises. The keys of results.json are its attributes.

    Attributes:
        drill: The drill's name.
        sentence: The fault in one phrase.
        recovery: Seconds, as the drill measures it; None if it did not recover.
        healthy_after: Seconds from the revert until every service was healthy and every replica in sync; None if
            that took longer than promised.
        attempts_lost: The number of tries that did not count.
        tasks_lost: The number of tasks that never completed.
        tasks_doubled: The number of tasks that completed more than once.
        overlapping: The number of tasks of which two tries ran at the same time.
        alerts: Seconds from the fault to the first notification, by alert.
        broken: A sentence for each broken promise.
    """

    drill: str
    sentence: str
    recovery: float | None
    healthy_after: float | None
    attempts_lost: int
    tasks_lost: int
    tasks_doubled: int
    overlapping: int
    alerts: dict[str, float]
    broken: tuple[str, ...]


def evaluate(drill: Drill, observation: Observation) -> Outcome:
    """Compare the observations with the drill's promises."""
    entries = observation.entries
    hosts = {target[:12] for target in observation.targets}
    # Tasks that started while the fault was being injected were lost with their container.
    own_tasks = ledger.tasks_running_on(entries, hosts, observation.times.injected)
    outcome = Outcome(
        drill=drill.name,
        sentence=drill.sentence,
        recovery=recovery(drill, observation, own_tasks),
        healthy_after=observation.healthy_after,
        attempts_lost=ledger.lost_tries(entries),
        tasks_lost=ledger.lost_tasks(entries, {task: int(drill.load[task]) for task in ("short", "long")}),
        tasks_doubled=ledger.tasks_completed_twice(entries),
        overlapping=ledger.overlapping_tasks(entries),
        alerts={alert: notification.seconds for alert, notification in (observation.alerts or {}).items()},
        broken=(),
    )
    broken = (
        *broken_task_promises(drill, observation, outcome, own_tasks),
        *broken_stack_promises(drill, observation, outcome),
        *broken_alert_promises(drill, observation.alerts),
    )
    return replace(outcome, broken=broken)


def recovery(drill: Drill, observation: Observation, own_tasks: set[TaskKey]) -> float | None:
    """Return the seconds until recovery as the drill measures it; None if it did not recover.

    Args:
        drill: The drill.
        observation: The observations of the drill.
        own_tasks: The tasks that ran on a target.
    """
    began, injected, reverted = observation.times
    match drill.measure:
        case "interruption":
            return ledger.longest_interruption(observation.entries, began)
        case "after revert":
            return ledger.longest_interruption(observation.entries, reverted)
        case "rerun":
            seconds = ledger.seconds_until_rerun(observation.entries, own_tasks, injected)
            return None if seconds is None else seconds + injected - began


def broken_task_promises(
    drill: Drill, observation: Observation, outcome: Outcome, own_tasks: set[TaskKey]
) -> Iterator[str]:
    """Yield the broken promises about the run and its tasks; see `recovery` for the arguments."""
    if observation.run_state != "success":
        yield f"the run is {observation.run_state}"
    if outcome.tasks_lost:
        yield f"{outcome.tasks_lost} tasks lost"
    unreported = unreported_completions(drill, observation)
    if outcome.tasks_doubled > len(unreported):
        yield f"{outcome.tasks_doubled} tasks completed twice, {len(unreported)} allowed"
    if outcome.overlapping:
        yield f"{outcome.overlapping} tasks ran twice at the same time"
    allowed = len(own_tasks | unreported) + observation.silent_tries if drill.allows_lost_tries else 0
    if outcome.attempts_lost > allowed:
        yield f"{outcome.attempts_lost} attempts lost, {allowed} allowed"
    if drill.allows_lost_tries and not own_tasks:
        yield "no task ran on the target, so the drill proves nothing"


def unreported_completions(drill: Drill, observation: Observation) -> set[TaskKey]:
    """Return the tasks whose worker ended before it reported their success; none where no worker's process ends."""
    if not drill.allows_lost_tries or drill.fault not in ("crash", "kill"):
        return set()
    hosts = {target[:12] for target in observation.targets}
    return ledger.unreported_completions(observation.entries, hosts, observation.times.injected)


def broken_stack_promises(drill: Drill, observation: Observation, outcome: Outcome) -> Iterator[str]:
    """Yield the broken promises about recovery, health and the containers."""
    if outcome.recovery is None:
        yield f"no recovery, promised within {drill.deadline:.0f} s"
    elif outcome.recovery > drill.deadline:
        yield f"recovery after {outcome.recovery:.1f} s, promised within {drill.deadline:.0f} s"
    if observation.healthy_after is None or observation.healthy_after > drill.healthy_within:
        yield f"a service is not healthy or a replica not in sync {drill.healthy_within:.0f} s after the revert"
    if observation.blocked_slots:
        yield f"{observation.blocked_slots} slots blocked by suspended tasks"
    if observation.container_exits:
        yield f"containers exited: {', '.join(observation.container_exits)}"
    if drill.forbids_promotion and observation.promoted:
        yield f"needless promotion: {', '.join(observation.promoted)}"


def broken_alert_promises(drill: Drill, alerts: Mapping[str, Notification] | None) -> Iterator[str]:
    """Yield the broken promises about alerts; none if notifications cannot be read."""
    if alerts is None:
        return
    if drill.alert and drill.alert not in alerts:
        yield f"no notification of {drill.alert}"
    elif drill.alert and not alerts[drill.alert].is_resolved:
        yield f"{drill.alert} was not resolved"
    if unexpected := sorted(alerts.keys() - {drill.alert, *drill.allowed_alerts}):
        yield f"unexpected alerts: {', '.join(unexpected)}"
