"""How many instances of each Airflow component there should be, as recording rules: alerts compare with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from ops.project import SCALABLE, replicas_variable

if TYPE_CHECKING:
    from collections.abc import Mapping

METRIC = "airflow_ha_instances_wanted"


def rules(settings: Mapping[str, str]) -> str:
    """The rules, as YAML."""
    wanted = {"dag-processor": "1"} | {service: settings[replicas_variable(service)] for service in SCALABLE}
    recorded = [
        {"record": METRIC, "expr": f"vector({count})", "labels": {"component": component}}
        for component, count in sorted(wanted.items())
    ]
    return "# Written by `./ops/stack up` from *_REPLICAS in .env; do not edit.\n" + yaml.safe_dump(
        {"groups": [{"name": "instances-wanted", "rules": recorded}]}, sort_keys=False
    )
