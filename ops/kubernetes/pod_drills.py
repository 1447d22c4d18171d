"""Drills on Kubernetes: a fault while the drills' load runs, judged by the same ledger as on Docker."""

from __future__ import annotations

import contextlib
import csv
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ops.drills import ledger
from ops.drills.ledger import SERVE, TABLE, Ledger
from ops.errors import StackError
from ops.kubernetes import installation, kubectl, manifests, rendering, values
from ops.kubernetes.translation import EXECUTION_API
from ops.project import ROOT
from ops.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ops.clients.airflow import AirflowClient, Run
    from ops.drills.ledger import Entry
    from ops.kubernetes.translation import Cluster, Manifest

LEDGER: Final = "drill-ledger"
DAG_FILE: Final = ROOT / "ops/drills/drill_dag.py"
DAG_ID: Final = "drill"
LOAD: Final[Mapping[str, int]] = {"short": 60, "long": 6}
LONG_SECONDS: Final = 40.0
START_SECONDS: Final = 180.0
RUN_SECONDS: Final = 900.0
READY_SECONDS: Final = 900.0


@dataclass(frozen=True)
class PodDrill:
    """A fault.

    Attributes:
        name: As users type it.
        fault: What it does, in one phrase.
        inject: Injects it, and returns the pods that it ended.
        revert: Ends it, before the check that every pod is ready.
        recovery_seconds: The most seconds until tasks of an ended worker run elsewhere.
        ready_seconds: The most seconds until every pod is ready.
    """

    name: str
    fault: str
    inject: Callable[[Mapping[str, str], Callable[[str], None]], list[str]]
    revert: Callable[[Mapping[str, str], Callable[[str], None]], None] = lambda *_: None
    recovery_seconds: float = 60.0
    ready_seconds: float = 120.0


@dataclass
class PodOutcome:
    """What a drill cost.

    Attributes:
        drill: The drill.
        targets: The pods that the fault ended.
        state: The state in which the run ended.
        entries: The ledger's entries.
        began: When the fault began, by the ledger's clock.
        ready_after: Seconds from the fault until every pod of a Deployment was replaced and ready.
        broken: The broken promises.
    """

    drill: PodDrill
    targets: Sequence[str]
    state: str
    entries: Sequence[Entry]
    began: float
    ready_after: float
    broken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Compare the figures with the promises."""
        own = ledger.tasks_running_on(self.entries, set(self.targets), self.began)
        self.own_tasks = len(own)
        self.rerun = ledger.seconds_until_rerun(self.entries, own, self.began)
        self.lost = ledger.lost_tasks(self.entries, LOAD)
        unreported = ledger.unreported_completions(self.entries, set(self.targets), self.began)
        self.twice = max(0, ledger.tasks_completed_twice(self.entries) - len(unreported))
        self.overlapping = ledger.overlapping_tasks(self.entries)
        self.tries_lost = ledger.lost_tries(self.entries)
        self.interruption = ledger.longest_interruption(self.entries, self.began)
        promises = {
            f"the run is {self.state}": self.state == "success",
            f"{self.lost} tasks lost": not self.lost,
            f"{self.twice} tasks completed twice": not self.twice,
            f"{self.overlapping} tasks ran twice at the same time": not self.overlapping,
            f"{self.tries_lost} tries lost, {self.own_tasks} tasks ran on a target": self.tries_lost <= self.own_tasks,
            f"tasks ran elsewhere after {self.rerun} s": (
                self.rerun is not None and self.rerun <= self.drill.recovery_seconds
            ),
            f"ready after {self.ready_after:.1f} s": self.ready_after <= self.drill.ready_seconds,
        }
        self.broken += [promise for promise, is_kept in promises.items() if not is_kept]

    @property
    def passed(self) -> bool:
        """Whether every promise was kept."""
        return not self.broken

    def lines(self) -> list[str]:
        """Return the figures."""
        return [
            f"{self.drill.name}: {self.drill.fault}: {', '.join(self.targets) or 'no pod ended'}",
            f"  run {self.state}; {self.own_tasks} tasks ran there, elsewhere after {self.rerun or 0:.1f} s; "
            f"longest interruption {self.interruption:.1f} s; every pod ready after {self.ready_after:.1f} s",
            f"  lost {self.lost}, twice {self.twice}, overlapping {self.overlapping}, tries lost {self.tries_lost}",
            *(f"  broken: {broken}" for broken in self.broken),
        ]


# ---- the faults


def kill(component: str) -> Callable[[Mapping[str, str], Callable[[str], None]], list[str]]:
    """Return the fault that kills one pod of a component at once."""

    def inject(settings: Mapping[str, str], report: Callable[[str], None]) -> list[str]:
        label = f"component={component}"
        ready = [each for each in kubectl.labelled(settings, ["pods"], label) if installation.is_ready(each)]
        if not ready:
            raise StackError(
                f"cannot kill a pod of {component}: none is ready", hint="run ./ops/stack kubernetes status"
            )
        name = str(ready[0]["metadata"]["name"])
        kubectl.output(settings, "delete", "pod", name, "--force", "--grace-period=0", "--wait=false")
        report(f"killed {name}")
        return [name]

    return inject


DRILLS: Final = {
    drill.name: drill
    for drill in (
        PodDrill("worker-pod", "a worker's pod is killed", kill("worker")),
        PodDrill("scheduler-pod", "a scheduler's pod is killed", kill("scheduler")),
        PodDrill("api-pod", "an API server's pod is killed", kill("api-server")),
        PodDrill("execution-api-pod", "an Execution API server's pod is killed", kill(EXECUTION_API)),
    )
}


# ---- the load


def run(
    drill: PodDrill,
    cluster: Cluster,
    api: AirflowClient,
    copy: Callable[[Mapping[str, str]], None],
    report: Callable[[str], None],
) -> PodOutcome:
    """Run a drill.

    Args:
        drill: The drill.
        cluster: The cluster.
        api: A client of Airflow.
        copy: Copies the DAG files, with further ones.
        report: Receives progress lines.
    """
    settings = cluster.settings
    with loaded(cluster, api, copy, report) as (book, started):
        wait_until_running(book, started, report)
        began, at = book.now(), time.monotonic()
        targets = drill.inject(settings, report)
        wait(lambda: replaced(settings, targets), READY_SECONDS, "every pod is replaced", report)
        ready_after = time.monotonic() - at
        report(f"every pod is replaced after {ready_after:.1f} s")
        ended = api.wait_for(started, report, timeout=RUN_SECONDS)
        drill.revert(settings, report)
        wait(lambda: all_ready(settings), READY_SECONDS, "every component is ready", report)
        return PodOutcome(drill, targets, ended.state, book.entries(started.run_id), began, ready_after)


@contextlib.contextmanager
def loaded(
    cluster: Cluster, api: AirflowClient, copy: Callable[[Mapping[str, str]], None], report: Callable[[str], None]
) -> Iterator[tuple[PodLedger, Run]]:
    """Run the drills' DAG with its ledger during the block."""
    with started_ledger(cluster) as book:
        copy({"kubernetes_drill_dag.py": DAG_FILE.read_text(encoding="utf-8")})
        try:
            wait(lambda: api.has_dag(DAG_ID), START_SECONDS, f"Airflow has parsed {DAG_ID}", report)
            yield book, api.trigger(DAG_ID, {"ledger": LEDGER, "long_seconds": LONG_SECONDS, **LOAD})
        finally:
            copy({})


def wait_until_running(book: PodLedger, started: Run, report: Callable[[str], None]) -> None:
    """Wait until every long task runs."""

    def running() -> bool:
        long = {entry.key for entry in book.entries(started.run_id) if entry.task == "long" and entry.event == "start"}
        return len(long) >= LOAD["long"]

    wait(running, START_SECONDS, "the long tasks run", report)


def replaced(settings: Mapping[str, str], targets: Sequence[str]) -> bool:
    """Return whether every Deployment has all its pods ready, without the targets. A StatefulSet waits for its node."""
    label = f"release={settings['KUBERNETES_RELEASE']}"
    ready = [pod for pod in kubectl.labelled(settings, ["pods"], label) if installation.is_ready(pod)]
    if {pod["metadata"]["name"] for pod in ready} & set(targets):
        return False
    counted = Counter(pod["metadata"]["labels"]["component"] for pod in ready)
    return all(
        counted[item["spec"]["template"]["metadata"]["labels"]["component"]] >= int(item["spec"]["replicas"])
        for item in kubectl.labelled(settings, ["deployments"], label)
    )


def all_ready(settings: Mapping[str, str]) -> bool:
    """Return whether every component has all its pods ready."""
    return all(component.ready >= component.expected for component in installation.components(settings))


@dataclass(frozen=True)
class PodLedger(Ledger):
    """A ledger in a pod.

    Attributes:
        settings: The settings of the cluster.
    """

    settings: Mapping[str, str] = field(default_factory=dict)

    def query(self, statement: str) -> list[list[str]]:
        """Return the rows of an SQL statement."""
        command = ["psql", "--host=/tmp", "--username=postgres", "--csv", "--tuples-only", f"--command={statement}"]
        return list(csv.reader(kubectl.output(self.settings, "exec", self.container, "--", *command).splitlines()))


@contextlib.contextmanager
def started_ledger(cluster: Cluster) -> Iterator[PodLedger]:
    """Run a ledger for the duration of the block."""
    settings = cluster.settings
    objects = ledger_objects(cluster)
    kubectl.output(settings, "delete", "pod", LEDGER, "--ignore-not-found", "--wait=true")
    kubectl.apply(settings, rendering.dump_all(objects))
    book = PodLedger(LEDGER, settings)
    try:
        kubectl.output(settings, "wait", "--for=condition=Ready", f"pod/{LEDGER}", "--timeout=120s")

        def created() -> bool:
            try:
                book.query(TABLE)
            except StackError as error:
                return "already exists" in error.what
            return True

        wait(created, START_SECONDS, "the drills' ledger answers", lambda _: None)
        yield book
    finally:
        for kind in ("pod", "service", "networkpolicy"):
            kubectl.output(settings, "delete", kind, LEDGER, "--ignore-not-found", "--wait=false")


def ledger_objects(cluster: Cluster) -> list[Manifest]:
    """Return the pod of the ledger, its Service, and the policy that lets tasks reach it."""
    labels = {"component": LEDGER}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": LEDGER, "labels": labels},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {**values.POD_SECURITY, "runAsUser": 999, "runAsGroup": 999, "fsGroup": 999},
            # It outlives the node that a drill powers off.
            "tolerations": [{"operator": "Exists", "effect": "NoExecute"}],
            "containers": [
                {
                    "name": LEDGER,
                    "image": cluster.settings["POSTGRES_IMAGE"],
                    "imagePullPolicy": cluster.settings["KUBERNETES_PULL_POLICY"],
                    "command": ["sh", "-c", SERVE],
                    "securityContext": values.CONTAINER_SECURITY,
                    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
                }
            ],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }
    service = manifests.manifest("v1", "Service", LEDGER, cluster, spec={"selector": labels, "ports": [{"port": 5432}]})
    spec = {
        "podSelector": {"matchLabels": labels},
        "policyTypes": ["Ingress"],
        "ingress": [{"ports": [{"port": 5432}]}],
    }
    policy = manifests.manifest("networking.k8s.io/v1", "NetworkPolicy", LEDGER, cluster, spec=spec)
    return [pod, service, policy]
