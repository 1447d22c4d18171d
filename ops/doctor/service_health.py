"""What `./ops/stack status` knows: services, data tier, import errors, scrape targets, patches, versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ops import data_tier, status
from ops.doctor.finding import Finding, Urgency
from ops.images.versions import known_faults
from ops.project import ROOT
from ops.status import is_ready

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ops.doctor.finding import Examined
    from ops.status import ServiceStatus, Status


DOWN: Final = "down"
LISTED: Final = 3
"""Services that are down, up to which each has a finding of its own."""
UP: Final = "./ops/stack up"


def gather(examined: Examined) -> Status:
    """Return the status of the stack."""
    return status.collect(examined.project)


def services(now: Status) -> Iterator[Finding]:
    """Yield a finding for each service that is not ready; a single one for those that are down, if they are many."""
    findings = [unready(service) for service in now["services"] if not is_ready(service)]
    down = [finding for finding in findings if finding.state == DOWN]
    if len(down) > LISTED:
        # Without the state of each instance.
        value = ", ".join(f"{finding.object} {finding.value.partition(';')[0]}" for finding in down)
        yield Finding(Urgency.URGENT, f"{len(down)} services", DOWN, value, UP)
        findings = [finding for finding in findings if finding not in down]
    yield from findings


def unready(service: ServiceStatus) -> Finding:
    """Return the finding of a service that is not ready."""
    name, instances = service["name"], service["instances"]
    health = [instance["health"] for instance in instances]
    urgency = Urgency.SOON if service["healthy"] or "starting" in health else Urgency.URGENT
    states = [f"{instance['id']} {instance['state']}, {instance['health']}" for instance in instances]
    value = f"{service['healthy']} of {service['wanted']} healthy" + "".join(f"; {state}" for state in states)
    if any(instance["state"] == "running" and instance["health"] == "unhealthy" for instance in instances):
        return Finding(urgency, name, "unhealthy", value, f"./ops/stack logs {name}")
    if "starting" in health and "unhealthy" not in health:
        return Finding(urgency, name, "starting", value, "./ops/stack status in a minute")
    if urgency is Urgency.URGENT:
        return Finding(urgency, name, DOWN, value, UP)
    missing = len(instances) < service["wanted"] or service["healthy"] < service["wanted"]
    return Finding(urgency, name, f"{'fewer' if missing else 'more'} than the expected replicas", value, UP)


def data_nodes(now: Status) -> Iterator[Finding]:
    """Yield a finding for each node of the replicated data tier that is not healthy, and for Postgres out of sync."""
    members = now["data"] or []
    for member in members:
        if not data_tier.is_healthy(member):
            value = f"{member['role']}, {member['state']}"
            yield Finding(Urgency.URGENT, member["service"], "not replicating", value, "./ops/stack up")
    if members and all(map(data_tier.is_healthy, members)) and not data_tier.is_in_sync(members):
        value = "a crash of the primary loses the last commits, or there is no single primary"
        yield Finding(Urgency.URGENT, "data tier", "out of sync", value, "./ops/stack status shows the roles")


def import_errors(now: Status) -> Iterator[Finding]:
    """Yield a finding for each DAG file that does not import, and one while Airflow does not answer."""
    if now["dags"] is None:
        value = "import errors of DAG files are unknown"
        yield Finding(Urgency.URGENT, "Airflow", "does not answer", value, "./ops/stack logs api-server gateway")
    for error in (now["dags"] or {}).get("import_errors", []):
        fix = f"fix {error['file']}; ./ops/stack logs dag-processor has the traceback"
        yield Finding(Urgency.SOON, f"DAG file {error['file']}", "does not import", error["error"], fix)


def targets(now: Status) -> Iterator[Finding]:
    """Yield a finding for each target that Prometheus cannot scrape."""
    for target in now["targets"] or []:
        if target["health"] == "down":
            fix = "read alerting/runbooks/TargetDown.md"
            yield Finding(Urgency.SOON, f"metrics of {target['job']}", "not scraped", target["error"], fix)


def patches(now: Status) -> Iterator[Finding]:
    """Yield a finding for each reason for which patches are not applied."""
    names: dict[tuple[str, str], list[str]] = {}
    for patch in now["patches"]:
        names.setdefault((patch["state"], patch["reason"]), []).append(patch["patch"])
    for (state, reason), group in names.items():
        urgency = Urgency.SOON if state == "skipped" else Urgency.NOTE
        value = f"{reason}: {', '.join(dict.fromkeys(group))}"
        yield Finding(urgency, "patches", state, value, "./ops/stack patches")


def instances(now: Status) -> Iterator[Finding]:
    """Yield a finding for each instance with suspended tasks or refused log-ins."""
    for service in now["services"]:
        for instance in service["instances"]:
            where = f"{service['name']} {instance['id']}"
            if suspended := instance["suspended_tasks"]:
                fix = "read alerting/runbooks/AirflowTasksSuspended.md"
                yield Finding(Urgency.SOON, where, "tasks suspended", f"{suspended} worker slots", fix)
            if refused := instance["refused_addresses"] + instance["refused_users"]:
                fix = "read alerting/runbooks/AirflowLogInsRefused.md"
                yield Finding(Urgency.SOON, where, "log-ins refused", f"{refused} addresses and users", fix)


def versions(now: Status) -> Iterator[Finding]:
    """Yield a finding for each image with a known critical fault."""
    official = {key: image["reference"] for key, image in now["images"].items() if image["origin"] == "official"}
    for fault in known_faults(ROOT, official):
        fix = "set the version in compose/images.env, then ./ops/stack up"
        yield Finding(Urgency.URGENT, "image", "known critical fault", fault, fix)
