"""Every alert name and cause in an inhibit rule exists: a renamed one would disable the rule without an error."""

from __future__ import annotations

import re

import yaml

from airflow_ha.monitoring.findings import ALERT_NAMES, DEPENDS_ON
from ops.commands.silence import known_alerts
from ops.project import ROOT
from tests.unit.alerting.alert_rules import ALERTS, causes, depends_on

INHIBIT_RULES = yaml.safe_load((ROOT / "alerting/alertmanager/alertmanager.yaml").read_text())["inhibit_rules"]
MATCHER = re.compile(r'alertname(=~|=)"([^"]+)"')


def matched_causes() -> set[str]:
    """Return the causes that the inhibit rules match by `depends_on`."""
    texts = [text for rule in INHIBIT_RULES for text in rule["target_matchers"]]
    return {match[1] for text in texts if (match := re.fullmatch(r'depends_on=~"\.\*(.+)\.\*"', text))}


def alertname_matchers() -> list[tuple[str, str]]:
    """Return operator and pattern of each matcher of `alertname`."""
    texts = [text for rule in INHIBIT_RULES for side in ("source_matchers", "target_matchers") for text in rule[side]]
    return [match.groups() for text in texts if (match := MATCHER.fullmatch(text))]


def alternatives(pattern: str) -> list[str]:
    """Split `A(b|c)|D` into `Ab`, `Ac`, `D`."""
    parts, depth = [""], 0
    for letter in pattern:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "|" and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [
        part.replace(group[0], choice)
        for part in parts
        for group in [re.search(r"\(([^()]*)\)", part) or [""]]
        for choice in (group[1].split("|") if group[0] else [""])
    ]


def test_a_pattern_splits_into_every_name_that_it_matches():
    assert alternatives("A(b|c)|D.*") == ["Ab", "Ac", "D.*"]


def test_every_alert_name_in_an_inhibit_rule_exists():
    known = known_alerts(ROOT)
    unknown = {
        name
        for operator, pattern in alertname_matchers()
        for name in (alternatives(pattern) if operator == "=~" else [pattern])
        if not any(re.fullmatch(name, alert) for alert in known)
    }
    assert unknown == set()


def test_causes_in_depends_on_are_those_of_the_inhibit_rules():
    assert matched_causes() == set().union(*map(causes, ALERTS))


def test_no_cause_is_part_of_another_ones_name():
    """The matchers are `.*cause.*`."""
    names = matched_causes()
    assert [(name, other) for name in names for other in names if name != other and name in other] == []


def test_a_finding_depends_on_the_same_causes_as_its_rule():
    names = {rule["alert"] for rule in ALERTS}
    assert {name: value for name, value in DEPENDS_ON.items() if name in names and value != depends_on(name)} == {}
    assert all(causes({"labels": {"depends_on": value}}) <= matched_causes() for value in DEPENDS_ON.values())


def test_no_cause_inhibits_itself():
    for rule in INHIBIT_RULES:
        sources = [match[2] for text in rule["source_matchers"] if (match := MATCHER.fullmatch(text))]
        targets = [match[2] for text in rule["target_matchers"] if (match := MATCHER.fullmatch(text))]
        if sources and len(rule["source_matchers"]) == 1:
            assert not any(re.fullmatch(target, sources[0]) for target in targets), rule


def may_match(matchers: list[str], labels: dict[str, str]) -> bool:
    """Return whether matchers match an alert with these labels; other labels may have any value."""
    for name, operator, pattern in (re.fullmatch(r'(\w+)(=~|=)"(.*)"', text).groups() for text in matchers):
        if name in labels and not re.fullmatch(pattern if operator == "=~" else re.escape(pattern), labels[name]):
            return False
    return True


def test_no_finding_inhibits_an_alert_about_the_platform():
    """A task may send any finding (compose/gateway/haproxy.cfg)."""
    paths = [ROOT / "alerting/rules" / name for name in ("platform.yaml", "telemetry.yaml")]
    groups = [group for path in paths for group in yaml.safe_load(path.read_text())["groups"]]
    alerts = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    platform = [{"alertname": rule["alert"], "source": "", **rule["labels"]} for rule in alerts]
    assert {"PostgresDown", "GatewayDown", "AlertmanagerDown", "Watchdog"} <= {alert["alertname"] for alert in platform}
    inhibited = {
        (finding, alert["alertname"])
        for rule in INHIBIT_RULES
        for finding in ALERT_NAMES
        for alert in platform
        if may_match(rule["source_matchers"], {"alertname": finding, "source": "monitoring_dag"})
        and may_match(rule["target_matchers"], alert)
        and ("alertname" not in rule.get("equal", []) or finding == alert["alertname"])
    }
    assert inhibited == set()
    assert may_match(['alertname="PostgresDown"'], {"alertname": "PostgresDown", "source": "monitoring_dag"})
