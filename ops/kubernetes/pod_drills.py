"""Drills on Kubernetes: a fault while the drills' load runs, judged by the same ledger as on Docker."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ops.drills import ledger
from ops.errors import StackError
from ops.kubernetes import installation, kubectl, pod_faults, remote_parts
from ops.kubernetes.pod_ledger import LEDGER, START_SECONDS, PodLedger, started_ledger
from ops.kubernetes.translation import API_SERVER, EXECUTION_API
from ops.project import ROOT
from ops.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from ops.clients.airflow import AirflowClient, Run
    from ops.drills.ledger import Entry
    from ops.kubernetes.pod_faults import Fault, Report
    from ops.kubernetes.translation import Cluster

    Connect = Callable[[], AbstractContextManager[AirflowClient]]
    Copy = Callable[[Mapping[str, str]], None]

DAG_FILE: Final = ROOT / "ops/drills/drill_dag.py"
DAG_ID: Final = "drill"
LOAD: Final[Mapping[str, int]] = {"short": 60, "long": 6}
LONG_LOAD: Final[Mapping[str, int]] = {"short": 240, "long": 6}
"""For faults that last for minutes."""
LONG_SECONDS: Final = 40.0
RUN_SECONDS: Final = 900.0
READY_SECONDS: Final = 900.0
RECONNECT_SECONDS: Final = 2.0


@dataclass(frozen=True)
class PodDrill:
    """A fault and its promises.

    Attributes:
        name: As users type it.
        fault: What it does, in one phrase.
        inject: Injects it, and returns the pods that it ended.
        revert: Ends it, before the check that every pod is ready.
        loses_tries: Whether tries on the ended pods may be lost. Then their tasks run elsewhere within the deadline;
            otherwise the deadline is that of the next completed short task.
        recovery_seconds: The deadline.
        ready_seconds: The most seconds until every pod is replaced and ready.
        load: The number of tasks.
    """

    name: str
    fault: str
    inject: Fault
    revert: Callable[[Cluster, Report], None] = lambda *_: None
    loses_tries: bool = False
    recovery_seconds: float = 60.0
    ready_seconds: float = 120.0
    load: Mapping[str, int] = field(default_factory=lambda: LOAD)


@dataclass(frozen=True)
class Observation:
    """What was seen during a drill.

    Attributes:
        targets: The pods that the fault ended.
        state: The state in which the run ended.
        entries: The ledger's entries.
        began: When the fault began, by the ledger's clock.
        ready_after: Seconds from the fault until every pod of a Deployment was replaced and ready.
    """

    targets: Sequence[str]
    state: str
    entries: Sequence[Entry]
    began: float
    ready_after: float


@dataclass(frozen=True)
class PodOutcome:
    """What a drill cost.

    Attributes:
        drill: Its name.
        pods: How many pods the fault ended.
        own_tasks: How many tasks ran there.
        recovery: Seconds until recovery as the drill measures it; None if it did not recover.
        ready_after: As in Observation.
        tries_lost: The number of tries that did not count.
        tasks_lost: The number of tasks that never completed.
        run_twice: The number of tasks that completed twice or ran twice at the same time.
        broken: A sentence for each broken promise.
    """

    drill: str
    pods: int
    own_tasks: int
    recovery: float | None
    ready_after: float
    tries_lost: int
    tasks_lost: int
    run_twice: int
    broken: tuple[str, ...]


DRILLS: Final = (
    PodDrill("worker-pod", "a worker's pod is killed", pod_faults.kill("worker"), loses_tries=True),
    PodDrill("scheduler-pod", "a scheduler's pod is killed", pod_faults.kill("scheduler")),
    PodDrill("api-pod", "an API server's pod is killed", pod_faults.kill(API_SERVER)),
    PodDrill("execution-api-pod", "an Execution API server's pod is killed", pod_faults.kill(EXECUTION_API)),
    PodDrill(
        "drain",
        "a node is drained",
        pod_faults.drain,
        pod_faults.uncordon,
        # Workers finish their tasks before they leave.
        ready_seconds=240.0,
        load=LONG_LOAD,
    ),
    PodDrill(
        "upgrade",
        "every pod of Airflow is replaced by an upgrade",
        pod_faults.upgrade,
        # One component after the other, and the chart's hook.
        ready_seconds=300.0,
        load=LONG_LOAD,
    ),
)
"""The drills that any cluster allows; the test cluster has more (cluster/node_drills.py)."""


# ---- promises


def evaluate(drill: PodDrill, observation: Observation) -> PodOutcome:
    """Compare the observations with the drill's promises."""
    entries, began, targets = observation.entries, observation.began, set(observation.targets)
    own = ledger.tasks_running_on(entries, targets, began)
    rerun = ledger.seconds_until_rerun(entries, own, began)
    recovery = rerun if drill.loses_tries else ledger.longest_interruption(entries, began)
    tasks_lost, tries_lost = ledger.lost_tasks(entries, drill.load), ledger.lost_tries(entries)
    # A worker that is lost within a second of a task's last statement has not reported its success.
    unreported = ledger.unreported_completions(entries, targets, began) if drill.loses_tries else set()
    twice = max(0, ledger.tasks_completed_twice(entries) - len(unreported))
    overlapping = ledger.overlapping_tasks(entries)
    allowed = len(own | unreported) if drill.loses_tries else 0
    promises = {
        f"the run is {observation.state}": observation.state == "success",
        f"{tasks_lost} tasks lost": not tasks_lost,
        f"{twice} tasks completed twice": not twice,
        f"{overlapping} tasks ran twice at the same time": not overlapping,
        f"{tries_lost} tries lost, {allowed} allowed": tries_lost <= allowed,
        "no task ran on a target, so the drill proves nothing": bool(own) or not drill.loses_tries,
        f"recovery after {recovery} s, promised within {drill.recovery_seconds:.0f} s": (
            recovery is not None and recovery <= drill.recovery_seconds
        ),
        f"ready after {observation.ready_after:.1f} s, promised within {drill.ready_seconds:.0f} s": (
            observation.ready_after <= drill.ready_seconds
        ),
    }
    return PodOutcome(
        drill.name,
        pods=len(targets),
        own_tasks=len(own),
        recovery=recovery,
        ready_after=observation.ready_after,
        tries_lost=tries_lost,
        tasks_lost=tasks_lost,
        run_twice=twice + overlapping,
        broken=tuple(promise for promise, is_kept in promises.items() if not is_kept),
    )


# ---- the run


def run(drill: PodDrill, cluster: Cluster, connect: Connect, copy: Copy, report: Report) -> PodOutcome:
    """Run a drill.

    Args:
        drill: The drill.
        cluster: The cluster.
        connect: Opens a connection to Airflow, which the fault may cut.
        copy: Copies the DAG files, with further ones.
        report: Receives progress lines.
    """
    settings = cluster.settings
    with loaded(drill, cluster, connect, copy, report) as (book, started):
        wait_until_running(drill, book, started, report)
        began, at = book.now(), time.monotonic()
        try:
            targets = drill.inject(cluster, report)
            wait(lambda: replaced(settings, targets), READY_SECONDS, "every pod is replaced", report)
            ready_after = time.monotonic() - at
            report(f"every pod is replaced after {ready_after:.1f} s")
            state = state_at_end(connect, started, report)
        finally:
            drill.revert(cluster, report)
        wait(lambda: all_ready(settings), READY_SECONDS, "every component is ready", report)
        # Only now: a try that a cut node has suspended could still write.
        return evaluate(drill, Observation(targets, state, book.entries(started.run_id), began, ready_after))


@contextlib.contextmanager
def loaded(
    drill: PodDrill, cluster: Cluster, connect: Connect, copy: Copy, report: Report
) -> Iterator[tuple[PodLedger, Run]]:
    """Run the drills' DAG with its ledger during the block."""
    from_git = remote_parts.has_git(cluster.settings)
    with started_ledger(cluster) as book:
        if not from_git:
            copy({"kubernetes_drill_dag.py": DAG_FILE.read_text(encoding="utf-8")})
        try:
            with connect() as api:
                hint = (
                    f"add {DAG_FILE.relative_to(ROOT)} to your repository of DAGs"
                    if from_git
                    else "open the import errors in Airflow"
                )
                wait(lambda: api.has_dag(DAG_ID), START_SECONDS, f"Airflow has parsed {DAG_ID}", report, hint=hint)
                conf = {"ledger": LEDGER, "long_seconds": LONG_SECONDS, **drill.load}
                started = api.trigger(DAG_ID, conf)
            yield book, started
        finally:
            if not from_git:
                copy({})


def wait_until_running(drill: PodDrill, book: PodLedger, started: Run, report: Report) -> None:
    """Wait until every long task runs."""

    def running() -> bool:
        long = {entry.key for entry in book.entries(started.run_id) if entry.task == "long" and entry.event == "start"}
        return len(long) >= drill.load["long"]

    wait(running, START_SECONDS, "the long tasks run", report)


def state_at_end(connect: Connect, started: Run, report: Report) -> str:
    """Return the state in which the run ends, over as many connections as that takes.

    Raises:
        StackError: It has not ended in time.
    """
    deadline = time.monotonic() + RUN_SECONDS
    while True:
        try:
            with connect() as api:
                return api.wait_for(started, report, timeout=max(1.0, deadline - time.monotonic())).state
        except StackError:
            # The forwarded port ends with its pod.
            if time.monotonic() > deadline:
                raise
            time.sleep(RECONNECT_SECONDS)


def replaced(settings: Mapping[str, str], targets: Sequence[str]) -> bool:
    """Return whether every Deployment has all its pods ready, without the targets. A StatefulSet waits for its node."""
    label = f"release={settings['KUBERNETES_RELEASE']}"
    ready = [pod for pod in kubectl.labelled(settings, ["pods"], label) if installation.is_ready(pod)]
    deployments = kubectl.labelled(settings, ["deployments"], label)
    expected = {
        item["spec"]["template"]["metadata"]["labels"]["component"]: int(item["spec"]["replicas"])
        for item in deployments
    }
    own = [pod for pod in ready if pod["metadata"]["labels"]["component"] in expected]
    if {pod["metadata"]["name"] for pod in own} & set(targets):
        return False
    counted = Counter(pod["metadata"]["labels"]["component"] for pod in own)
    return all(counted[component] >= number for component, number in expected.items())


def all_ready(settings: Mapping[str, str]) -> bool:
    """Return whether every component has all its pods ready."""
    return all(component.ready >= component.expected for component in installation.components(settings))
