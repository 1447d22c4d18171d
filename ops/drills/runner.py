"""The course of one drill: start the load, inject the fault, revert it, wait for recovery, evaluate."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ops import compose, data_tier
from ops.clients import prometheus, slack_stub
from ops.clients.prometheus import is_settled
from ops.dag_file import DagFile
from ops.data_tier import is_in_sync
from ops.drills import faults, image_change, ledger
from ops.drills.evaluate import FaultTimes, Notification, Observation, evaluate
from ops.errors import StackError
from ops.project import ROOT
from ops.services import POSTGRES_NODES
from ops.status import all_ready
from ops.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ops.clients.airflow import AirflowClient, Run
    from ops.clients.slack_stub import Message
    from ops.drills.catalogue import Drill, Target
    from ops.drills.evaluate import Outcome
    from ops.drills.ledger import Ledger
    from ops.project import Project

DAG_ID = "drill"
LOAD_DAG = DagFile(ROOT / "ops/drills/drill_dag.py", (DAG_ID,))
COMPLETED_BEFORE_FAULT = 8
"""Short tasks that complete before the fault is injected, so that the load is steady."""
RUN_SECONDS = 480.0
BUSY_SECONDS = 90.0
HEALTHY_SECONDS = 300.0
RESOLVED_SECONDS = 150.0
"""Longest wait for an alert to be resolved after the revert."""
QUIET_SECONDS = 600.0
"""Longest wait until no alert fires or is inhibited after an earlier fault."""
LAG_SECONDS = 60.0
"""Longest wait for Patroni to drop a replica that does not answer."""
SLOTS_FREE_SECONDS = 60.0
"""Longest wait for suspended tasks to continue or to end, and for the worker's health check to report that."""
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Environment:
    """A running stack that drills run on.

    Attributes:
        project: The stack's project.
        settings: The stack's .env.
        api: A client of its REST API.
        ledger: The ledger of the load.
        report: Prints a line of progress.
        run_timeout: Longest duration of the load's run, seconds.
    """

    project: Project
    settings: Mapping[str, str]
    api: AirflowClient
    ledger: Ledger
    report: Callable[[str], None]
    run_timeout: float = RUN_SECONDS

    @property
    def name(self) -> str:
        """The name of the compose project."""
        return self.settings["COMPOSE_PROJECT_NAME"]

    @property
    def has_slack_stub(self) -> bool:
        """Whether notifications can be read: not without observability, nor with a webhook of the operator's."""
        return slack_stub.is_active(self.settings)


def run_drill(drill: Drill, environment: Environment) -> Outcome:
    """Run one drill and evaluate it.

    Raises:
        StackError: The drill could not be run. Broken promises are in the outcome.
    """
    name = environment.name
    model = compose.config(environment.project)
    wait_until_ready(drill, environment, model)
    run = start_load(drill, environment)
    targets = target_containers(name, drill.targets)
    if drill.targets and not targets:
        raise StackError(
            f"cannot run {drill.name}: none of {', '.join(drill.required_services)} runs", hint="run ./ops/stack status"
        )
    primaries_before = primaries(name, model)
    earlier_alerts = pending_alerts(environment.settings) if environment.has_slack_stub else frozenset()

    with compose.endings(name) as container_exits:
        began_here, times = inject_and_revert(drill, environment, run, targets)
        # The health is measured before the run ends: a service that is healthy at its end may be healthy for minutes.
        healthy_after = seconds_until_healthy(drill, environment, model)
        run_state = final_state(environment, run)
        exits = container_exits() if drill.forbids_container_exits else []
    blocked = blocked_slots(name, environment.report)
    entries = environment.ledger.entries(run.run_id)
    if run_state == "success":
        # The run must still be successful after an old primary has returned.
        run_state = environment.api.run(DAG_ID, run.run_id).state
    promoted = primaries(name, model) - primaries_before
    notified = notifications(drill, environment, began_here, earlier_alerts)
    hosts = [target[:12] for target in targets]
    observation = Observation(
        entries=entries,
        run_state=run_state,
        targets=targets,
        times=times,
        healthy_after=healthy_after,
        alerts=notified,
        promoted=sorted(promoted),
        silent_tries=sum(environment.api.host_of(run, *each) in hosts for each in ledger.silent_tries(entries)),
        container_exits=exits,
        blocked_slots=blocked,
    )
    return evaluate(drill, observation)


def wait_until_ready(drill: Drill, environment: Environment, model: Mapping[str, Any]) -> None:
    """Wait until the stack is healthy and, where the drill expects an alert, until no other alert inhibits it."""
    report = environment.report
    wait(lambda: is_healthy(environment.name, model), HEALTHY_SECONDS, "every service is healthy", report)
    if drill.alert and environment.has_slack_stub:
        quiet = "no alert fires or is inhibited after an earlier fault"
        wait(lambda: is_settled(environment.settings), QUIET_SECONDS, quiet, report)


def is_replicated(model: Mapping[str, Any]) -> bool:
    """Return whether a compose model has the replicated data tier."""
    return POSTGRES_NODES[0] in model["services"]


def is_healthy(name: str, model: Mapping[str, Any]) -> bool:
    """Return whether every service is healthy and every replica in sync.

    Args:
        name: The compose project's name.
        model: Its compose model.
    """
    return all_ready(model) and (not is_replicated(model) or is_in_sync(data_tier.members(name)))


def primaries(name: str, model: Mapping[str, Any]) -> set[str]:
    """Return the primaries of the replicated data tier; none without one. See `is_healthy` for the arguments."""
    return data_tier.primaries(data_tier.members(name)) if is_replicated(model) else set()


def start_load(drill: Drill, environment: Environment) -> Run:
    """Start a run of the load's DAG and wait until its tasks are running."""
    load = drill.load
    run = environment.api.trigger(DAG_ID, {**load, "ledger": environment.ledger.container})

    def is_busy() -> bool:
        entries = environment.ledger.entries(run.run_id)
        completed = sum(entry.task == "short" and entry.event == "end" for entry in entries)
        started = sum(entry.task == "long" and entry.event == "start" for entry in entries)
        return completed >= min(COMPLETED_BEFORE_FAULT, load["short"]) and started == load["long"]

    wait(is_busy, BUSY_SECONDS, "the load's tasks are running", environment.report)
    return run


def inject_and_revert(
    drill: Drill, environment: Environment, run: Run, targets: Sequence[str]
) -> tuple[float, FaultTimes]:
    """Inject the fault, keep it for the drill's duration, and revert it.

    Args:
        drill: The drill.
        environment: The stack.
        run: The run of the load.
        targets: Docker's ids of the containers.

    Returns:
        When the fault began, in seconds since the epoch by this machine's clock, and its times by the ledger's clock.
    """
    with replicas_lagging(drill, environment, run):
        began, began_here = environment.ledger.now(), time.time()
        environment.report(f"{drill.sentence}: {', '.join(targets)}" if targets else drill.sentence)
        if drill.fault == "replace":
            revert = image_change.replace_containers(environment.project, drill.targets, environment.report)
        else:
            revert = faults.inject(drill.fault, targets, environment.settings.get("POSTGRES_IMAGE", ""))
        injected = environment.ledger.now()
    try:
        ends = time.monotonic() + drill.duration
        # A fixed time, because the fault's duration is part of the drill.
        while time.monotonic() < ends:
            time.sleep(min(POLL_SECONDS, max(0.0, ends - time.monotonic())))
    finally:
        revert()
    return began_here, FaultTimes(began, injected, environment.ledger.now())


@contextmanager
def replicas_lagging(drill: Drill, environment: Environment, run: Run) -> Iterator[None]:
    """Freeze the drill's `lagging` replicas; the block starts when their primary has commits that they lack.

    Raises:
        StackError: The primary still waits for the replicas.
    """
    if not drill.lagging:
        yield
        return
    name, report = environment.name, environment.report

    def has_started_task(since: float) -> bool:
        entries = environment.ledger.entries(run.run_id)
        return any(entry.event == "start" and entry.at > since for entry in entries)

    revert = faults.inject("freeze", target_containers(name, drill.lagging))
    try:
        asynchronous = "the primary commits without its replica"
        wait(lambda: not data_tier.has_synchronous(data_tier.members(name)), LAG_SECONDS, asynchronous, report)
        since = environment.ledger.now()
        wait(lambda: has_started_task(since), LAG_SECONDS, "there are commits that the replica lacks", report)
        yield
    finally:
        revert()


def target_containers(name: str, targets: Sequence[Target]) -> list[str]:
    """Return Docker's ids of the targets' containers, by the roles that nodes have now.

    Args:
        name: The compose project's name.
        targets: The targets of a drill.
    """
    instances = compose.instances(name)
    members = data_tier.members(name) if any(target.role for target in targets) else []
    containers: list[str] = []
    for target in targets:
        services = [
            member["service"]
            for member in members
            # `in`, because a `sync replica` is a replica too.
            if target.role
            and member["service"].startswith(f"{target.service}-")
            and (target.role == "node" or target.role in member["role"])
        ] or [target.service]
        containers += [each.id for service in services for each in instances.get(service, [])][: target.count]
    return containers


def seconds_until_healthy(drill: Drill, environment: Environment, model: Mapping[str, Any]) -> float | None:
    """Wait for the stack to be healthy, and return how long that took; None if longer than promised."""
    began = time.monotonic()
    try:
        wait(
            lambda: is_healthy(environment.name, model),
            drill.healthy_within,
            "every service is healthy",
            environment.report,
        )
    except StackError:
        return None
    return time.monotonic() - began


def final_state(environment: Environment, run: Run) -> str:
    """Wait for the end of a run and return its state; `running` if it does not end in time."""
    try:
        return environment.api.wait_for(run, environment.report, timeout=environment.run_timeout).state
    except StackError as error:
        environment.report(error.what)
        return "running"


def blocked_slots(name: str, report: Callable[[str], None]) -> int:
    """Return how many worker slots are still blocked by suspended tasks after SLOTS_FREE_SECONDS.

    Args:
        name: The compose project's name.
        report: Prints a line of progress.
    """

    def suspended_tasks() -> int:
        return sum(each.suspended_tasks for instances in compose.instances(name).values() for each in instances)

    try:
        wait(lambda: not suspended_tasks(), SLOTS_FREE_SECONDS, "no slot is blocked by a suspended task", report)
    except StackError as error:
        report(error.what)
    return suspended_tasks()


def pending_alerts(settings: Mapping[str, str]) -> frozenset[str]:
    """Return the alerts that fire or are pending: later notifications of them belong to an earlier fault."""
    server = prometheus.connect(settings)
    return frozenset(series["metric"]["alertname"] for series in server.query("ALERTS"))


def notifications(
    drill: Drill, environment: Environment, since: float, earlier: frozenset[str]
) -> dict[str, Notification] | None:
    """Return the notifications since the fault by alert; None if they cannot be read.

    If the drill expects an alert, wait for it to be resolved.

    Args:
        drill: The drill.
        environment: The stack.
        since: When the fault began, seconds since the epoch.
        earlier: The alerts of earlier faults.
    """
    if not environment.has_slack_stub:
        return None

    def received() -> dict[str, Notification]:
        messages = slack_stub.messages(environment.settings)
        return notifications_by_alert(
            [message for message in messages if message.received >= since], since, drill.alert, earlier
        )

    def is_resolved() -> bool:
        return any(alert == drill.alert and each.is_resolved for alert, each in received().items())

    if drill.alert:
        try:
            wait(is_resolved, RESOLVED_SECONDS, f"{drill.alert} is resolved", environment.report)
        except StackError as error:
            environment.report(error.what)
    return received()


def notifications_by_alert(
    messages: Sequence[Message], since: float, expected: str | None, earlier: frozenset[str]
) -> dict[str, Notification]:
    """Group messages by alert, without those of earlier faults.

    Args:
        messages: The messages since the fault.
        since: When the fault began, seconds since the epoch.
        expected: The alert that the drill expects, which counts even if it is in `earlier`.
        earlier: The alerts of earlier faults.
    """
    grouped: dict[str, Notification] = {}
    for message in messages:
        # A resolved message without a firing one before it belongs to an earlier fault.
        is_new = message.firing and (message.alert == expected or message.alert not in earlier)
        if message.alert in grouped or is_new:
            first = grouped[message.alert].seconds if message.alert in grouped else message.received - since
            grouped[message.alert] = Notification(first, is_resolved=not message.firing)
    return grouped
