"""The sources of facts with their checks, and the findings of all."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from ops import compose, preflight, settings_file
from ops.doctor import (
    backups,
    before_up,
    broker,
    changes,
    containers,
    database,
    expiring_certificates,
    firing_alerts,
    host,
    metrics,
    service_health,
    tasks,
)
from ops.doctor.finding import Examined, Finding, OutOfScopeError, Urgency
from ops.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ops.project import Project


@dataclass(frozen=True)
class Source:
    """A source of facts, which is read once, and the checks of its facts.

    Attributes:
        name: What a finding calls it if it cannot be read.
        needs: What must answer before it is read.
        gather: Reads the facts; a StackError becomes a finding.
        checks: Pure functions that yield findings.
    """

    name: str
    needs: Literal["host", "Docker", "a running stack"]
    gather: Callable[[Examined], Any]
    checks: tuple[Callable[[Any], Iterable[Finding]], ...]


SOURCES: Final = (
    Source("host", "host", host.gather, (host.memory, host.pressure, host.disk_space, host.clock)),
    Source("pre-flight", "Docker", before_up.gather, (before_up.refusals, before_up.advice)),
    Source(
        "changes",
        "host",
        changes.gather,
        (
            changes.unfinished_upgrade,
            changes.unfinished_restore,
            changes.maintenance,
            changes.backups,
            changes.replaced_database,
        ),
    ),
    Source("certificates", "host", expiring_certificates.gather, (expiring_certificates.expiring,)),
    Source("backups", "a running stack", backups.gather, (backups.storages, backups.archive, backups.verification)),
    Source("containers", "a running stack", containers.gather, (containers.restarts, containers.killed)),
    Source(
        "status",
        "a running stack",
        service_health.gather,
        (
            service_health.services,
            service_health.data_nodes,
            service_health.import_errors,
            service_health.targets,
            service_health.patches,
            service_health.instances,
            service_health.versions,
        ),
    ),
    Source(
        "Postgres",
        "a running stack",
        database.gather,
        (
            database.connections,
            database.transactions,
            database.dead_rows,
            database.transaction_ids,
            database.unread_slots,
            database.clock,
        ),
    ),
    Source("tasks", "a running stack", tasks.gather, (tasks.stuck,)),
    Source(
        "Redis",
        "a running stack",
        broker.gather,
        (broker.unconsumed_queues, broker.orphaned_messages, broker.memory, broker.persistence, broker.clock),
    ),
    Source("metrics", "a running stack", metrics.gather, (metrics.disk_growth, metrics.oom_kills)),
    Source("alerts", "a running stack", firing_alerts.gather, (firing_alerts.firing,)),
)
"""All checks; a new one is a function in the module of its source, and a name here."""


@dataclass(frozen=True)
class Diagnosis:
    """The findings, the most urgent first, and the names of the sources that were read."""

    findings: list[Finding]
    read: list[str]

    @property
    def is_urgent(self) -> bool:
        """Whether any finding is urgent."""
        return any(finding.urgency is Urgency.URGENT for finding in self.findings)

    def text(self) -> str:
        """Return what was read, the findings as a numbered list of two lines each, and their numbers."""
        counts = Counter(finding.urgency for finding in self.findings)
        listed = []
        for number, finding in enumerate(self.findings, start=1):
            what = ": ".join(filter(None, (finding.urgency, finding.object, finding.state, finding.value)))
            listed += [f"{number:3}. {printable(what)}", f"     fix: {printable(finding.fix)}"]
        summary = ", ".join(f"{counts[urgency]} {urgency}" for urgency in Urgency)
        return "\n".join([f"read: {', '.join(self.read)}", *listed, f"findings: {summary}"])


def printable(text: str) -> str:
    """Return a text on one line, without control characters: names of queues and tasks come from DAG files."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))


def diagnose(project: Project) -> Diagnosis:
    """Read every source and return the findings, also while the stack, Docker or Postgres is down."""
    examined, findings = examine(project)
    is_usable = examined.docker_answers and bool(examined.settings)
    available = {"host": True, "Docker": is_usable, "a running stack": is_usable and examined.is_running}
    for needed, answers in available.items():
        if skipped := [source.name for source in SOURCES if source.needs == needed and not answers]:
            findings.append(unread(", ".join(skipped), Urgency.NOTE, "not checked", f"{needed} required"))
    read = []
    for source in (source for source in SOURCES if available[source.needs]):
        try:
            facts = source.gather(examined)
        except OutOfScopeError as error:
            findings.append(unread(source.name, Urgency.NOTE, error.what, error.where, error.hint))
        except StackError as error:
            findings.append(unread(source.name, Urgency.URGENT, error.what, error.where, error.hint))
        except Exception as error:  # a source that cannot be read must not hide the others
            findings.append(unread(source.name, Urgency.URGENT, "cannot be read", f"{type(error).__name__}: {error}"))
        else:
            read.append(source.name)
            findings += [finding for check in source.checks for finding in check(facts)]
    order = list(Urgency)
    return Diagnosis(sorted(findings, key=lambda finding: order.index(finding.urgency)), read)


def unread(name: str, urgency: Urgency, state: str, value: str, fix: str = "") -> Finding:
    """Return the finding of a source that could not be read."""
    return Finding(urgency, name, state, value, fix or "fix what is listed before it, then run doctor again")


def examine(project: Project) -> tuple[Examined, list[Finding]]:
    """Return the stack with what several sources read, and the findings where that cannot be read."""
    findings: list[Finding] = []
    settings: dict[str, str] = {}
    instances: dict[str, list[compose.Instance]] = {}
    docker_answers = False
    with reported("settings", findings):
        settings = settings_file.read(project)
    with reported("Docker", findings):
        preflight.check_docker()
        docker_answers = True
    if docker_answers and settings:
        with reported("containers", findings):
            instances = compose.instances(settings["COMPOSE_PROJECT_NAME"])
    examined = Examined(project, settings, instances, docker_answers)
    if docker_answers and settings and not examined.is_running:
        value = "its data and settings are kept" if project.env_file.exists() else "it was never started"
        findings.append(Finding(Urgency.URGENT, "stack", "down", value, "./ops/stack up"))
    return examined, findings


@contextlib.contextmanager
def reported(name: str, findings: list[Finding]) -> Iterator[None]:
    """Turn a StackError of the block into an urgent finding."""
    try:
        yield
    except StackError as error:
        findings.append(unread(name, Urgency.URGENT, error.what, error.where, error.hint))
