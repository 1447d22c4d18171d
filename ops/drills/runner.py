"""One drill from the whole stack to the whole stack, and what it cost."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ops import compose, data_tier
from ops.clients import slack_stub
from ops.clients.prometheus import Prometheus, is_settled
from ops.dag_file import DagFile
from ops.data_tier import is_in_sync
from ops.drills import faults, ledger
from ops.errors import StackError
from ops.project import ROOT
from ops.services import POSTGRES_NODES, local_url
from ops.status import all_ready
from ops.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ops.clients.airflow import AirflowClient, Run
    from ops.clients.slack_stub import Message
    from ops.drills.catalogue import Drill, Victim
    from ops.drills.ledger import Ledger
    from ops.project import Project

DAG_ID = "drill"
LOAD_DAG = DagFile(ROOT / "ops/drills/drill_dag.py", (DAG_ID,))
LOAD = {"short": 150, "short_seconds": 1.0, "long": 4, "long_seconds": 45.0}
ONLY_LONG = 12
"""Long tasks where there are no others: some in each worker, with room for those that run again."""
UNDER_WAY = 8
"""Short tasks that have ended before the fault strikes: the stream flows."""
RUN_SECONDS = 480.0
BUSY_SECONDS = 90.0
WHOLE_SECONDS = 300.0
ALERT_SECONDS = 150.0
"""For an alert to be resolved after its fault is taken back."""
QUIET_SECONDS = 600.0
"""How long to wait for a stack in which nothing fires, nor the aftermath of an earlier fault."""
WITHOUT_SECONDS = 60.0
"""For Patroni to give up a replica that does not answer."""
FREE_SECONDS = 60.0
"""For the tasks that a worker had suspended to go on or to end, and for a health check of it to see that."""
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Outcome:
    """What one drill cost, and which of its promises were broken.

    Attributes:
        drill: its name.
        sentence: what happened.
        recovery: seconds, as the drill measures it; None when there was none.
        whole_again: seconds from the end of the fault until every service was healthy and every replica in sync; None
            when that was not so in time.
        attempts_lost: attempts that began and did not count.
        tasks_lost: tasks that never ended.
        tasks_doubled: tasks that ended more than once.
        overlapping: tasks of which two attempts ran at once.
        alerts: the alerts that people were sent, with the seconds from the fault.
        broken: every promise that was not kept, in words.
    """

    drill: str
    sentence: str
    recovery: float | None
    whole_again: float | None
    attempts_lost: int
    tasks_lost: int
    tasks_doubled: int
    overlapping: int
    alerts: dict[str, float]
    broken: tuple[str, ...]


def conduct(
    drill: Drill,
    project: Project,
    settings: Mapping[str, str],
    api: AirflowClient,
    book: Ledger,
    report: Callable[[str], None],
    patience: float = RUN_SECONDS,
) -> Outcome:
    """Strikes once and counts.

    Args:
        drill: What strikes whom, and what is promised.
        project: The stack.
        settings: Its .env.
        api: Its REST API.
        book: The ledger of the load.
        report: Shows a line to people.
        patience: Seconds for the load's run to end.

    Raises:
        StackError: The drill itself could not be held; a promise that is not kept is in the outcome.
    """
    name = settings["COMPOSE_PROJECT_NAME"]
    model = compose.config(project)
    replicated = POSTGRES_NODES[0] in model["services"]
    load = load_of(drill)

    def whole() -> bool:
        return all_ready(model) and (not replicated or is_in_sync(data_tier.members(name)))

    wait(whole, WHOLE_SECONDS, "every service is healthy", report)
    if drill.alert and slack_stub.is_there(settings):
        quiet = "nothing fires, nor is muted for an earlier fault"
        wait(lambda: is_settled(settings), QUIET_SECONDS, quiet, report)
    run = api.trigger(DAG_ID, {**load, "ledger": book.container})

    def busy() -> bool:
        entries = book.entries(run.run_id)
        ended = sum(entry.task == "short" and entry.event == "end" for entry in entries)
        begun = sum(entry.task == "long" and entry.event == "start" for entry in entries)
        return ended >= min(UNDER_WAY, load["short"]) and begun == load["long"]

    wait(busy, BUSY_SECONDS, "the load is under way", report)
    victims = containers(name, drill.victims)
    if drill.victims and not victims:
        raise StackError(f"{drill.name}: none of {', '.join(drill.services)} runs here", hint="./ops/stack status")

    before = data_tier.primaries(data_tier.members(name)) if replicated else set()
    earlier = stirring(settings) if slack_stub.is_there(settings) else frozenset()

    def goes_on(since: float) -> bool:
        return any(entry.event == "start" and entry.at > since for entry in book.entries(run.run_id))

    with compose.endings(name) as endings:
        with left_behind(name, drill.behind, book.now, goes_on, report):
            struck, struck_here = book.now(), time.time()
            report(f"{drill.sentence}: {', '.join(victims)}" if victims else drill.sentence)
            heal = faults.strike(drill.fault, victims, settings.get("POSTGRES_IMAGE", ""))
            landed = book.now()
        try:
            ends = time.monotonic() + drill.hold
            while time.monotonic() < ends:  # the time that the fault lasts is part of it
                time.sleep(min(POLL_SECONDS, max(0.0, ends - time.monotonic())))
        finally:
            heal()
        healed, healed_here = book.now(), time.monotonic()

        # Before the run's end: what is whole then may have been so for minutes.
        whole_again: float | None
        try:
            wait(whole, drill.whole_again, "every service is healthy", report)
            whole_again = time.monotonic() - healed_here
        except StackError:
            whole_again = None
        ended = settle(api, run, report, patience)
        restarts = endings() if drill.no_restarts else []
    blocked = suspended_tasks(name, report)
    entries = book.entries(run.run_id)
    if ended == "success":
        ended = api.run(DAG_ID, run.run_id).state  # it must still be so when an old primary has come back
    after = data_tier.primaries(data_tier.members(name)) if replicated else set()
    alerts = sent(settings, struck_here, drill.alert, earlier, report)
    hosts = [victim[:12] for victim in victims]
    silent_here = sum(api.host_of(run, *attempt) in hosts for attempt in ledger.silent(entries))
    return judge(
        drill,
        entries,
        ended,
        victims,
        struck,
        landed,
        healed,
        whole_again,
        alerts,
        moved=sorted(after - before),
        silent_here=silent_here,
        restarts=restarts,
        blocked=blocked,
    )


def suspended_tasks(name: str, report: Callable[[str], None]) -> int:
    """Return how many slots of the workers are still blocked by a suspended task after FREE_SECONDS.

    Args:
        name: The compose project's.
        report: Shows a line to people.
    """

    def blocked() -> int:
        return sum(instance.suspended_tasks for of in compose.instances(name).values() for instance in of)

    try:
        wait(lambda: not blocked(), FREE_SECONDS, "no slot is blocked by a suspended task", report)
    except StackError as error:
        report(error.what)
    return blocked()


@contextmanager
def left_behind(
    name: str,
    replicas: Sequence[Victim],
    now: Callable[[], float],
    goes_on: Callable[[float], bool],
    report: Callable[[str], None],
) -> Iterator[None]:
    """Replicas are frozen for as long as the block lasts, which begins when their primary has committed without them.

    Args:
        name: The compose project's.
        replicas: Which; none is nothing to do.
        now: The ledger's clock.
        goes_on: Whether a task has begun after that moment.
        report: Shows a line to people.

    Raises:
        StackError: The primary waits for them still.
    """
    if not replicas:
        yield
        return
    thaw = faults.strike("freeze", containers(name, replicas))
    try:
        alone = "the primary goes on without its replica"
        wait(lambda: not data_tier.has_synchronous(data_tier.members(name)), WITHOUT_SECONDS, alone, report)
        since = now()
        wait(lambda: goes_on(since), WITHOUT_SECONDS, "there are commits that the replica lacks", report)
        yield
    finally:
        thaw()


def load_of(drill: Drill) -> dict[str, float]:
    """The load that a drill strikes."""
    if drill.only_long:
        return {**LOAD, "short": 0, "long": ONLY_LONG}
    # As long as the fault, where that takes no container away: what runs must get through all of it.
    return LOAD if drill.victims else {**LOAD, "long_seconds": max(LOAD["long_seconds"], drill.hold)}


def containers(name: str, victims: Sequence[Victim]) -> list[str]:
    """Docker's ids of those that are to be struck, as things are now.

    Args:
        name: The compose project's.
        victims: Whom.
    """
    found = compose.instances(name)
    roles = data_tier.members(name) if any(victim.role for victim in victims) else []
    chosen: list[str] = []
    for victim in victims:
        services = [
            member["service"]
            for member in roles
            # A synchronous replica is one too.
            if victim.role
            and member["service"].startswith(f"{victim.service}-")
            and (victim.role == "node" or victim.role in member["role"])
        ] or [victim.service]
        chosen += [instance.id for service in services for instance in found.get(service, [])][: victim.count]
    return chosen


def settle(api: AirflowClient, run: Run, report: Callable[[str], None], patience: float) -> str:
    """The state that a run ends in; `running` when it does not in time."""
    try:
        return api.wait_for(run, report, timeout=patience).state
    except StackError as error:
        report(error.what)
        return "running"


def stirring(settings: Mapping[str, str]) -> frozenset[str]:
    """The alerts that fire or are about to: what is told of them later is of an earlier fault."""
    server = Prometheus(local_url(settings, "prometheus"))
    return frozenset(one["metric"]["alertname"] for one in server.query("ALERTS"))


def sent(
    settings: Mapping[str, str],
    since: float,
    alert: str | None,
    earlier: frozenset[str],
    report: Callable[[str], None],
) -> dict[str, tuple[float, bool]] | None:
    """The alerts that the stack's own Slack got since a moment: seconds after it, and whether the end was told too.

    None where there is no such Slack: without observability, or with a webhook of the operator's.

    Args:
        settings: The stack's .env.
        since: Seconds since the epoch.
        alert: The one that must come, whose end is waited for.
        earlier: Those of earlier faults.
        report: Shows a line to people.
    """
    if not slack_stub.is_there(settings):
        return None

    def messages() -> dict[str, tuple[float, bool]]:
        return told([one for one in slack_stub.messages(settings) if one.received >= since], since, alert, earlier)

    if alert:
        try:
            wait(lambda: messages().get(alert, (0, False))[1], ALERT_SECONDS, f"{alert} is resolved", report)
        except StackError as error:
            report(error.what)
    return messages()


def told(
    messages: Sequence[Message], since: float, alert: str | None, earlier: frozenset[str]
) -> dict[str, tuple[float, bool]]:
    """Each alert of these messages: when it was first told, and whether its end was told too; see `sent`."""
    found: dict[str, tuple[float, bool]] = {}
    for message in messages:
        # The end of one whose beginning is not among them is an earlier fault's.
        if message.alert in found or (message.firing and (message.alert == alert or message.alert not in earlier)):
            first, _ = found.get(message.alert, (message.received - since, False))
            found[message.alert] = (first, not message.firing)
    return found


def judge(
    drill: Drill,
    entries: list[ledger.Entry],
    ended: str,
    victims: list[str],
    struck: float,
    landed: float,
    healed: float,
    whole_again: float | None,
    alerts: dict[str, tuple[float, bool]] | None,
    *,
    moved: Sequence[str] = (),
    silent_here: int = 0,
    restarts: Sequence[str] = (),
    blocked: int = 0,
) -> Outcome:
    """What it cost, against what was promised.

    Args:
        drill: What was promised.
        entries: The ledger of its run.
        ended: The state in which the run ended.
        victims: The containers that were struck.
        struck: When it was begun to strike them, by the ledger's clock.
        landed: When all of them were struck: what began until then was lost with them.
        healed: When the fault was taken back.
        whole_again: Seconds from then until every service was healthy; None when that did not come.
        alerts: What people were sent; None when that cannot be known.
        moved: The nodes that have become a primary.
        silent_here: How many attempts a victim was given that never got to their first line.
        restarts: The containers that ended or ran out of memory though none may.
        blocked: How many slots of workers are still blocked by suspended tasks.
    """
    wanted = {task: int(load_of(drill)[task]) for task in ("short", "long")}
    tasks_lost, tasks_doubled = ledger.lost(entries, wanted), ledger.doubled(entries)
    overlapping = ledger.overlapping(entries)
    attempts = ledger.attempts_lost(entries)
    hosts = {victim[:12] for victim in victims}
    own = ledger.running_on(entries, hosts, landed)
    recovery: float | None
    match drill.measure:
        case "interruption":
            recovery = ledger.interruption(entries, struck)
        case "after return":
            recovery = ledger.interruption(entries, healed)
        case "run again":
            again = ledger.run_again_after(entries, own, landed)
            recovery = None if again is None else again + landed - struck

    broken = []
    if ended != "success":
        broken.append(f"the run is {ended}")
    if tasks_lost:
        broken.append(f"{tasks_lost} tasks lost")
    if tasks_doubled:
        broken.append(f"{tasks_doubled} tasks done twice")
    if overlapping:
        broken.append(f"{overlapping} tasks ran twice at once")
    allowed = len(own) + silent_here if drill.own_attempts else 0
    if attempts > allowed:
        broken.append(f"{attempts} attempts lost, {allowed} allowed")
    if drill.measure == "run again" and not own:
        broken.append("nothing ran in the victim: the drill proves nothing")
    if recovery is None or recovery > drill.deadline:
        shown = "none" if recovery is None else f"{recovery:.1f} s"
        broken.append(f"recovery {shown}, promised within {drill.deadline:.0f} s")
    if whole_again is None or whole_again > drill.whole_again:
        broken.append(f"not every service healthy {drill.whole_again:.0f} s after, or a replica not in sync")
    if blocked:
        broken.append(f"{blocked} slots blocked by suspended tasks")
    if restarts:
        broken.append(f"not every container lived through it: {', '.join(restarts)}")
    if drill.primaries_stay and moved:
        broken.append(f"{' and '.join(moved)} took over without reason")
    if alerts is not None and drill.alert:
        if drill.alert not in alerts:
            broken.append(f"nobody was told: no {drill.alert}")
        elif not alerts[drill.alert][1]:
            broken.append(f"{drill.alert} was not resolved")
    if extra := sorted((alerts or {}).keys() - {drill.alert, *drill.may_alert}):
        broken.append(f"needless alerts: {', '.join(extra)}")
    return Outcome(
        drill=drill.name,
        sentence=drill.sentence,
        recovery=recovery,
        whole_again=whole_again,
        attempts_lost=attempts,
        tasks_lost=tasks_lost,
        tasks_doubled=tasks_doubled,
        overlapping=overlapping,
        alerts={name: seconds for name, (seconds, _) in (alerts or {}).items()},
        broken=tuple(broken),
    )
