"""Inhibition names alerts that exist: one that is renamed would be told beside its cause, and nobody would know."""

from __future__ import annotations

import re

import yaml

from ops.commands.silence import known_alerts
from ops.project import ROOT

ALERTMANAGER = ROOT / "alerting/alertmanager/alertmanager.yaml"
MATCHER = re.compile(r'alertname(=~|=)"([^"]+)"')


def matchers() -> list[tuple[str, str]]:
    rules = yaml.safe_load(ALERTMANAGER.read_text())["inhibit_rules"]
    texts = [text for rule in rules for side in ("source_matchers", "target_matchers") for text in rule[side]]
    return [found.groups() for text in texts if (found := MATCHER.fullmatch(text))]


def alternatives(pattern: str) -> list[str]:
    """`A(b|c)|D.*` as its parts: each must match something."""
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


def test_a_pattern_is_split_into_each_name_that_it_means():
    assert alternatives("A(b|c)|D.*") == ["Ab", "Ac", "D.*"]


def test_every_name_in_an_inhibition_is_an_alerts():
    known = known_alerts(ROOT)
    vain = {
        name
        for operator, pattern in matchers()
        for name in (alternatives(pattern) if operator == "=~" else [pattern])
        if not any(re.fullmatch(name, alert) for alert in known)
    }
    assert vain == set()


def test_no_cause_mutes_itself():
    rules = yaml.safe_load(ALERTMANAGER.read_text())["inhibit_rules"]
    for rule in rules:
        sources = [found[2] for text in rule["source_matchers"] if (found := MATCHER.fullmatch(text))]
        targets = [found[2] for text in rule["target_matchers"] if (found := MATCHER.fullmatch(text))]
        if sources and len(rule["source_matchers"]) == 1:
            assert not any(re.fullmatch(target, sources[0]) for target in targets), rule
