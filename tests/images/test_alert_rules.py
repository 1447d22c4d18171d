"""Prometheus' own promtool runs the alert rules over the cases in alerting/tests.

The cases check when an alert fires and with which labels. Its texts are written once, in its rule: here only that they
render. Syntax of the rule files: test_recording_rules.py.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from ops.observability.expected_replicas import rules
from ops.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Rule = dict[str, Any]

CASES = sorted((ROOT / "alerting/tests").glob("*.yaml"))
TEXTS = ("summary", "description")
UNRENDERED = "(<no value>|<error expanding|%!)"
"""Marks of a failed template in a text, by text/template, Prometheus and printf."""


@pytest.fixture(scope="module")
def promtool(program):
    return program("PROMETHEUS_IMAGE", "/bin/promtool")


def without_texts(rule: Rule) -> Rule:
    """Return a rule without annotations and `depends_on`, which a case would have to repeat."""
    labels = {name: value for name, value in rule["labels"].items() if name != "depends_on"}
    return {**rule, "annotations": {}, "labels": labels}


def with_texts_as_labels(rule: Rule) -> Rule:
    """Return a rule whose texts are labels, so that PromQL can match them.

    The rule has no `for`: a label that changes with the value would restart it.
    """
    texts = {name: rule["annotations"][name] for name in TEXTS}
    return {**rule, "for": "0s", "annotations": {}, "labels": rule["labels"] | texts}


def rendering_checks(case: dict[str, Any]) -> dict[str, Any]:
    """Return a case that counts the alerts whose texts render, wherever the original expects alerts."""
    rendered = ", ".join(f'{name}!~".*{UNRENDERED}.*", {name}!=""' for name in TEXTS)
    checks = [
        {
            "expr": f'count(ALERTS{{alertname="{check["alertname"]}", alertstate="firing", {rendered}}})',
            "eval_time": check["eval_time"],
            "exp_samples": [{"labels": "{}", "value": len(check["exp_alerts"])}],
        }
        for check in case.get("alert_rule_test", [])
        if check["exp_alerts"]
    ]
    return {**case, "alert_rule_test": [], "promql_expr_test": checks}


def run_cases(
    promtool: str,
    path: Path,
    folder: Path,
    rewrite_rule: Callable[[Rule], Rule],
    rewrite_case: Callable[[dict[str, Any]], dict[str, Any]] = lambda case: case,
) -> None:
    """Run a file of cases in `folder`, over copies of its rules."""
    content = yaml.safe_load(path.read_text())
    copies = []
    for name in content["rule_files"]:
        file = yaml.safe_load((path.parent / name).read_text())
        for group in file["groups"]:
            group["rules"] = [rewrite_rule(rule) if "alert" in rule else rule for rule in group["rules"]]
        copies.append(folder / name.replace("/", "_"))
        copies[-1].write_text(yaml.safe_dump(file))
    cases = folder / path.name
    tests = [rewrite_case(case) for case in content["tests"]]
    cases.write_text(yaml.safe_dump({**content, "rule_files": [str(copy) for copy in copies], "tests": tests}))
    # A third of promtool's CPU is the collection of its garbage.
    environment = os.environ | {"GOGC": "800"}
    done = subprocess.run([promtool, "test", "rules", cases], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name)
def test_alerts_fire_when_they_should_and_at_no_other_time(promtool, tmp_path, path):
    run_cases(promtool, path, tmp_path, without_texts)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name)
def test_texts_of_every_firing_alert_render(promtool, tmp_path, path):
    run_cases(promtool, path, tmp_path, with_texts_as_labels, rendering_checks)


def test_promtool_accepts_the_rules_of_expected_replicas(promtool, tmp_path):
    generated = tmp_path / "wanted.yaml"
    generated.write_text(rules({"COMPOSE_PROFILES": "data-ha"}))
    done = subprocess.run([promtool, "check", "rules", generated], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
