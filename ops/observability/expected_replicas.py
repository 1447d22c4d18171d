"""Rules that record the expected replicas of each component: without them no instance counts as missing.

`up`, `scale` and `autoscale` write them to generated/rules/wanted.yaml, which Prometheus loads with its other rules
(compose/prometheus/prometheus.yaml).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ops import worker_bounds
from ops.services import POSTGRES_NODES, REDIS_NODES, SCALABLE, replicas_variable

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_REPLICAS: Final = {"worker": 2, "scheduler": 2, "api-server": 2, "execution-api": 2, "triggerer": 1}
"""The defaults of compose/airflow.yaml; a test compares the two."""

SINGLE: Final = ("dag-processor",)
"""Airflow components with one instance."""

REPLICATED: Final = {"postgres": len(POSTGRES_NODES) - 1, "redis": len(REDIS_NODES) - 1}
"""Replicas beside the primary in the profile `data-ha`; without the profile there are none."""

BOUNDS: Final = ("airflow_ha_workers_floor", "airflow_ha_workers_ceiling")
"""The fewest and the most instances of the component `worker`, with autoscaling only."""

HEADER: Final = """\
# Written by `./ops/stack up`, `scale` and `autoscale`, from *_REPLICAS, WORKER_FLOOR, WORKER_CEILING and
# COMPOSE_PROFILES in .env.
groups:
  - name: airflow-wanted
    interval: 5s
    rules:
"""


def rules(settings: Mapping[str, str], own_workers: Mapping[str, str] | None = None) -> str:
    """Return the recording rules, the same text for the same settings.

    Args:
        settings: Of .env (ops/settings_file.py).
        own_workers: The component of each of the operator's own worker services (ops/compose_override.py).

    Raises:
        ValueError: A number of replicas is not a number.
    """
    expected = {service: _replicas(settings, service) for service in SCALABLE} | dict.fromkeys(SINGLE, 1)
    for service, component in (own_workers or {}).items():
        expected[component] = expected.get(component, 0) + _replicas(settings, service)
    others = expected[worker_bounds.SERVICE] - _replicas(settings, worker_bounds.SERVICE)
    limits = worker_bounds.bounds(settings)
    is_replicated = "data-ha" in settings.get("COMPOSE_PROFILES", "").split(",")
    return HEADER + "".join(
        [
            *(
                f"      - record: airflow_ha_instances_wanted\n"
                f"        labels: {{ component: {component} }}\n"
                f"        expr: vector({number})\n"
                for component, number in sorted(expected.items())
            ),
            *(
                f"      - record: {service}_replicas_wanted\n        expr: vector({replicas if is_replicated else 0})\n"
                for service, replicas in REPLICATED.items()
            ),
            *(
                f"      - record: {name}\n        expr: vector({number + others})\n"
                for name, number in (zip(BOUNDS, (limits.floor, limits.ceiling), strict=True) if limits else ())
            ),
        ]
    )


def recorded() -> set[str]:
    """Return the names of the recorded metrics."""
    return {"airflow_ha_instances_wanted", *(f"{service}_replicas_wanted" for service in REPLICATED), *BOUNDS}


def _replicas(settings: Mapping[str, str], service: str) -> int:
    value = settings.get(replicas_variable(service), "") or str(DEFAULT_REPLICAS.get(service, 1))
    if not value.isdecimal():
        raise ValueError(f"{replicas_variable(service)} is {value!r}, not a number of replicas")
    return int(value)
