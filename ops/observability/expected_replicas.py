"""How many instances of each component there should be, as rules for Prometheus: only with these can one be missing.

`up` and `scale` write what `rules` returns to generated/rules/wanted.yaml, which Prometheus reads beside its other
rules (compose/prometheus/prometheus.yaml).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ops.services import POSTGRES_NODES, REDIS_NODES, SCALABLE, replicas_variable

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_REPLICAS: Final = {"worker": 2, "scheduler": 2, "api-server": 2, "execution-api": 2, "triggerer": 1}
"""What compose/airflow.yaml takes where .env says nothing; a test compares the two."""

SINGLE: Final = ("dag-processor",)
"""Airflow's components that have one instance."""

REPLICATED: Final = {"postgres": len(POSTGRES_NODES) - 1, "redis": len(REDIS_NODES) - 1}
"""What has so many replicas in the profile `data-ha`, and none without."""

HEADER: Final = """\
# Written by `./ops/stack up` and `./ops/stack scale`, from the *_REPLICAS and COMPOSE_PROFILES in .env.
groups:
  - name: airflow-wanted
    interval: 5s
    rules:
"""


def rules(settings: Mapping[str, str], own_workers: Mapping[str, str] | None = None) -> str:
    """The recording rules, the same text for the same settings.

    Args:
        settings: of .env; see ops/settings_file.py.
        own_workers: the component of each worker service of the operator's own; see ops/compose_override.py.

    Raises:
        ValueError: a number of instances is none.
    """
    wanted = {service: _replicas(settings, service) for service in SCALABLE} | dict.fromkeys(SINGLE, 1)
    for service, component in (own_workers or {}).items():
        wanted[component] = wanted.get(component, 0) + _replicas(settings, service)
    replicated = "data-ha" in settings.get("COMPOSE_PROFILES", "").split(",")
    return HEADER + "".join(
        [
            *(
                f"      - record: airflow_ha_instances_wanted\n"
                f"        labels: {{ component: {component} }}\n"
                f"        expr: vector({number})\n"
                for component, number in sorted(wanted.items())
            ),
            *(
                f"      - record: {service}_replicas_wanted\n        expr: vector({replicas if replicated else 0})\n"
                for service, replicas in REPLICATED.items()
            ),
        ]
    )


def recorded() -> set[str]:
    """The names that the rules make."""
    return {"airflow_ha_instances_wanted", *(f"{service}_replicas_wanted" for service in REPLICATED)}


def _replicas(settings: Mapping[str, str], service: str) -> int:
    value = settings.get(replicas_variable(service), "") or str(DEFAULT_REPLICAS.get(service, 1))
    if not value.isdecimal():
        raise ValueError(f"{replicas_variable(service)} is {value!r}: a number of instances is wanted")
    return int(value)
