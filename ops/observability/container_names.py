"""Rules that record the service of each container: the kernel's accounting has only container ids.

A container's id is also its host name, and survives restarts. `up` and `scale` write the rules to
generated/rules/containers.yaml.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ops.compose import Instance

RECORDED: Final = "airflow_ha_container"
"""1 for each container, with its `service` and its id as `airflow_instance`."""

HEADER: Final = """\
# Written by `./ops/stack up` and `./ops/stack scale`, from the containers that exist.
groups:
  - name: airflow-containers
    interval: 15s
    rules:
"""


def rules(instances: Mapping[str, Sequence[Instance]]) -> str:
    """Return the recording rules, the same text for the same containers.

    Args:
        instances: The containers by service (ops/compose.py).
    """
    return HEADER + "".join(
        f"      - record: {RECORDED}\n"
        f"        labels: {{ service: {service}, airflow_instance: '{identity}' }}\n"
        f"        expr: vector(1)\n"
        for service, containers in sorted(instances.items())
        for identity in sorted(container.id for container in containers)
    )
