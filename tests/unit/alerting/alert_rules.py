"""The alert rules, as tests read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from airflow_ha.monitoring.findings import DEPENDS_ON
from ops.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    Rule = dict[str, Any]


def rule_groups() -> Iterator[dict[str, Any]]:
    for path in sorted((ROOT / "alerting/rules").glob("*.yaml")):
        yield from yaml.safe_load(path.read_text())["groups"]


ALERTS: list[Rule] = [rule for group in rule_groups() for rule in group["rules"] if "alert" in rule]


def causes(rule: Rule) -> set[str]:
    """Return the causes that explain an alert, from its label `depends_on`."""
    return set(rule["labels"].get("depends_on", "").split(", ")) - {""}


def depends_on(alertname: str) -> str:
    """Return the label `depends_on` of a rule, or of a finding of the monitoring DAG; empty if it has none."""
    values = {rule["alert"]: rule["labels"].get("depends_on", "") for rule in ALERTS}
    return values.get(alertname, DEPENDS_ON.get(alertname, ""))
