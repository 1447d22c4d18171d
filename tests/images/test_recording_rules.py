"""Prometheus' own promtool runs the recording rules over the series in recording_rules.yaml."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ops.observability.metric_contract import rule_files
from ops.project import ROOT


@pytest.fixture(scope="module")
def promtool(program):
    return program("PROMETHEUS_IMAGE", "/bin/promtool")


@pytest.mark.parametrize("path", rule_files(ROOT), ids=lambda path: path.name)
def test_promtool_accepts_every_rule_file(promtool, path):
    done = subprocess.run([promtool, "check", "rules", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_recorded_values_are_those_of_the_cases(promtool):
    cases = Path(__file__).with_name("recording_rules.yaml")
    done = subprocess.run([promtool, "test", "rules", cases], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
