"""What Prometheus knows of the last hours: how fast the disk fills, and out-of-memory kills."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ops.clients import prometheus
from ops.doctor.finding import Finding, OutOfScopeError, Urgency
from ops.services import OBSERVABILITY
from ops.settings_file import profiles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ops.doctor.finding import Examined

HOUR: Final = 3600.0
FULL_SOON, FULL_URGENT = 7 * 24 * HOUR, 24 * HOUR
"""Seconds until the disk is full."""
# Without a sample of 6 h ago, as in a new stack, there is no result: the first images and databases are no trend.
UNTIL_FULL: Final = """
6 * 3600 * (1 - max(airflow_ha_disk_used_ratio))
  / ((max(airflow_ha_disk_used_ratio) - max(airflow_ha_disk_used_ratio offset 6h)) > 0)
"""
OOM_KILLS: Final = "round(sum by (airflow_instance) (increase(airflow_ha_container_oom_kills[24h]))) > 0"


@dataclass(frozen=True)
class Trends:
    """Seconds until the disk is full at the rate of the last 6 h (None: unknown, or never), and kills by service."""

    until_full: float | None
    oom_kills: dict[str, int]


def gather(examined: Examined) -> Trends:
    """Return the trends.

    Raises:
        StackError: Prometheus does not answer, or is off.
    """
    if OBSERVABILITY not in profiles(examined.settings):
        raise OutOfScopeError(
            f"cannot read metrics: the profile {OBSERVABILITY} is off",
            hint=f"run ./ops/stack up --profile {OBSERVABILITY}, with your other profiles",
        )
    server = prometheus.connect(examined.settings)
    services = {each.id: service for service, instances in examined.instances.items() for each in instances}
    kills: dict[str, int] = {}
    for series in server.query(OOM_KILLS):
        instance = series["metric"].get("airflow_instance", "")
        service = services.get(instance, f"removed container {instance}")
        kills[service] = kills.get(service, 0) + int(float(series["value"][1]))
    return Trends(until_full=server.value(UNTIL_FULL), oom_kills=kills)


def disk_growth(trends: Trends) -> Iterator[Finding]:
    """Yield a finding if the disk of Docker's volumes will be full in a week."""
    if trends.until_full is not None and trends.until_full < FULL_SOON:
        urgency = Urgency.URGENT if trends.until_full < FULL_URGENT else Urgency.SOON
        value = f"full in {trends.until_full / HOUR:.0f} h at the rate of the last 6 h"
        fix = "docker system df -v shows what grows; read alerting/runbooks/DiskFilling.md"
        yield Finding(urgency, "disk of Docker's volumes", "filling", value, fix)


def oom_kills(trends: Trends) -> Iterator[Finding]:
    """Yield a finding for each service of which the kernel killed a process."""
    for service, kills in sorted(trends.oom_kills.items()):
        value = f"{kills} kills in 24 h"
        fix = f"raise the memory limit of {service} in compose/.env (compose/README.md, Memory), then ./ops/stack up"
        yield Finding(Urgency.SOON, service, "out of memory", value, fix)
