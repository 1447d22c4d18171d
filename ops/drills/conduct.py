"""One drill from the whole stack to the whole stack, and what it cost."""

from __future__ import annotations

import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ops import compose, data_tier, slack, status
from ops.drills import faults, ledger
from ops.errors import FAILURE, StackError
from ops.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ops.airflow_client import AirflowClient, Run
    from ops.drills.catalogue import Drill, Victim
    from ops.drills.ledger import Ledger
    from ops.project import Project

DAG_ID = "drill"
DAG_FILE = ROOT / "ops/drills/drill_dag.py"
LOAD = {"short": 150, "short_seconds": 1.0, "long": 4, "long_seconds": 45.0}
UNDER_WAY = 8
"""Short tasks that have ended before the fault strikes: the stream flows."""
RUN_SECONDS = 480.0
BUSY_SECONDS = 90.0
WHOLE_SECONDS = 300.0
ALERT_SECONDS = 150.0
"""For an alert to be resolved after its fault is taken back."""
DAG_SECONDS = 90.0
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Outcome:
    """What one drill cost, and which of its promises were broken.

    Attributes:
        drill: its name.
        sentence: what happened.
        recovery: seconds, as the drill measures it; None when there was none.
        whole_again: seconds from the end of the fault until every service was healthy.
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
    whole_again: float
    attempts_lost: int
    tasks_lost: int
    tasks_doubled: int
    overlapping: int
    alerts: dict[str, float]
    broken: tuple[str, ...]


@contextmanager
def load_dag(folder: Any, api: AirflowClient, report: Callable[[str], None]) -> Iterator[None]:
    """The load's DAG is in the DAG folder for as long as the block lasts."""
    target = folder / DAG_FILE.name
    shutil.copy(DAG_FILE, target)
    target.chmod(0o644)
    try:
        wait(lambda: api.has_dag(DAG_ID), DAG_SECONDS, "Airflow has read the drills' DAG", report)
        yield
    finally:
        target.unlink(missing_ok=True)


def wait(condition: Callable[[], Any], seconds: float, what: str, report: Callable[[str], None]) -> Any:
    """What a condition returns as soon as that is true.

    Raises:
        StackError: It is not within so many seconds.
    """
    deadline = time.monotonic() + seconds
    said_at = time.monotonic()
    while not (answer := condition()):
        now = time.monotonic()
        if now > deadline:
            raise StackError(f"not within {seconds:.0f} s: {what}", cure="./ops/stack status", code=FAILURE)
        if now - said_at > 10:
            report(f"waiting until {what}")
            said_at = now
        time.sleep(POLL_SECONDS)
    return answer


def conduct(
    drill: Drill,
    project: Project,
    settings: Mapping[str, str],
    api: AirflowClient,
    book: Ledger,
    report: Callable[[str], None],
) -> Outcome:
    """Strikes once and counts.

    Raises:
        StackError: The drill itself could not be held; a promise that is not kept is in the outcome.
    """
    name = settings["COMPOSE_PROJECT_NAME"]
    model = compose.config(project)

    def whole() -> bool:
        return status.all_whole(model)

    wait(whole, WHOLE_SECONDS, "every service is healthy", report)
    run = api.trigger(DAG_ID, {**LOAD, "ledger": book.container})

    def busy() -> bool:
        entries = book.entries(run.run_id)
        ended = sum(entry.task == "short" and entry.event == "end" for entry in entries)
        begun = sum(entry.task == "long" and entry.event == "start" for entry in entries)
        return ended >= UNDER_WAY and begun == LOAD["long"]

    wait(busy, BUSY_SECONDS, "the load is under way", report)
    victims = containers(name, drill.victims)
    if not victims:
        raise StackError(f"{drill.name}: none of {', '.join(drill.services)} runs here", cure="./ops/stack status")

    struck, struck_here = book.now(), time.time()
    report(f"{drill.sentence}: {', '.join(victims)}")
    heal = faults.strike(drill.fault, victims)
    try:
        ends = time.monotonic() + drill.hold
        while time.monotonic() < ends:  # the time that the fault lasts is part of it
            time.sleep(min(POLL_SECONDS, max(0.0, ends - time.monotonic())))
    finally:
        heal()
    healed, healed_here = book.now(), time.monotonic()

    ended = settle(api, run, report)
    entries = book.entries(run.run_id)
    try:
        wait(whole, max(drill.whole_again - (time.monotonic() - healed_here), 1.0), "every service is healthy", report)
        whole_again = time.monotonic() - healed_here
    except StackError:
        whole_again = float("inf")
    alerts = sent(settings, struck_here, drill.alert, report)
    return judge(drill, entries, ended, victims, struck, healed, whole_again, alerts)


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
            if victim.role and member["service"].startswith(f"{victim.service}-") and victim.role in member["role"]
        ] or [victim.service]
        chosen += [instance.id for service in services for instance in found.get(service, [])][: victim.count]
    return chosen


def settle(api: AirflowClient, run: Run, report: Callable[[str], None]) -> str:
    """The state that a run ends in; `running` when it does not in time."""
    try:
        return api.wait_for(run, report, timeout=RUN_SECONDS).state
    except StackError as error:
        report(error.what)
        return "running"


def sent(
    settings: Mapping[str, str], since: float, alert: str | None, report: Callable[[str], None]
) -> dict[str, tuple[float, bool]] | None:
    """The alerts that the stack's own Slack got since a moment: seconds after it, and whether the end was told too.

    None where there is no such Slack: without observability, or with a webhook of the operator's.
    """
    if not slack.is_there(settings):
        return None

    def messages() -> dict[str, tuple[float, bool]]:
        found: dict[str, tuple[float, bool]] = {}
        for message in slack.messages(settings):
            if message.received >= since:
                first, _ = found.get(message.alert, (message.received - since, False))
                found[message.alert] = (first, not message.firing)
        return found

    if alert:
        try:
            wait(lambda: messages().get(alert, (0, False))[1], ALERT_SECONDS, f"{alert} is resolved", report)
        except StackError as error:
            report(error.what)
    return messages()


def judge(
    drill: Drill,
    entries: list[ledger.Entry],
    ended: str,
    victims: list[str],
    struck: float,
    healed: float,
    whole_again: float,
    alerts: dict[str, tuple[float, bool]] | None,
) -> Outcome:
    """What it cost, against what was promised.

    Args:
        drill: What was promised.
        entries: The ledger of its run.
        ended: The state in which the run ended.
        victims: The containers that were struck.
        struck: When, by the ledger's clock.
        healed: When the fault was taken back.
        whole_again: Seconds from then until every service was healthy.
        alerts: What people were sent; None when that cannot be known.
    """
    wanted = {"short": int(LOAD["short"]), "long": int(LOAD["long"])}
    tasks_lost, tasks_doubled = ledger.lost(entries, wanted), ledger.doubled(entries)
    overlapping = ledger.overlapping(entries)
    attempts = ledger.attempts_lost(entries)
    hosts = {victim[:12] for victim in victims}
    own = ledger.running_on(entries, hosts, struck)
    recovery: float | None
    match drill.measure:
        case "interruption":
            recovery = ledger.interruption(entries, struck)
        case "after return":
            recovery = ledger.interruption(entries, healed)
        case "run again":
            recovery = ledger.run_again_after(entries, own, struck)

    broken = []
    if ended != "success":
        broken.append(f"the run is {ended}")
    if tasks_lost:
        broken.append(f"{tasks_lost} tasks lost")
    if tasks_doubled:
        broken.append(f"{tasks_doubled} tasks done twice")
    if overlapping:
        broken.append(f"{overlapping} tasks ran twice at once")
    allowed = len(own) if drill.own_attempts else 0
    if attempts > allowed:
        broken.append(f"{attempts} attempts lost, {allowed} allowed")
    if drill.measure == "run again" and not own:
        broken.append("nothing ran in the victim: the drill proves nothing")
    if recovery is None or recovery > drill.deadline:
        shown = "none" if recovery is None else f"{recovery:.1f} s"
        broken.append(f"recovery {shown}, promised within {drill.deadline:.0f} s")
    if whole_again > drill.whole_again:
        broken.append(f"not every service healthy {drill.whole_again:.0f} s after")
    if alerts is not None and drill.alert:
        if drill.alert not in alerts:
            broken.append(f"nobody was told: no {drill.alert}")
        elif not alerts[drill.alert][1]:
            broken.append(f"{drill.alert} was not resolved")
    if extra := sorted((alerts or {}).keys() - {drill.alert}):
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
