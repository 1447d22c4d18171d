"""The containers, as Docker describes them: repeated restarts and out-of-memory kills."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from ops.doctor.finding import Finding, Urgency

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ops.compose import Instance
    from ops.doctor.finding import Examined

RESTARTS: Final = 3
RECENT_SECONDS: Final = 3600.0
DAY_SECONDS: Final = 86400.0


def gather(examined: Examined) -> Mapping[str, list[Instance]]:
    """Return the containers by service."""
    return examined.instances


def restarts(instances: Mapping[str, list[Instance]]) -> Iterator[Finding]:
    """Yield a finding for each container that restarted several times, and within the last hour."""
    for service, instance in every(instances):
        if instance.restarts >= RESTARTS and time.time() - instance.started < RECENT_SECONDS:
            value = f"{instance.restarts} restarts of {instance.id}, the last within an hour"
            yield Finding(Urgency.SOON, service, "restarts repeatedly", value, f"./ops/stack logs {service}")


def killed(instances: Mapping[str, list[Instance]]) -> Iterator[Finding]:
    """Yield a finding for each container that ended at its memory limit and started again within a day."""
    for service, instance in every(instances):
        if instance.was_out_of_memory and time.time() - instance.started < DAY_SECONDS:
            fix = (
                f"raise the memory limit of {service} in compose/.env (compose/README.md, Memory), then ./ops/stack up"
            )
            yield Finding(
                Urgency.SOON, service, "out of memory", f"container {instance.id} was killed in the last 24 h", fix
            )


def every(instances: Mapping[str, list[Instance]]) -> Iterator[tuple[str, Instance]]:
    """Yield each container with its service."""
    for service, containers in instances.items():
        for instance in containers:
            yield service, instance
