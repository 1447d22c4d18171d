"""The alert rules, run by Prometheus' own promtool over the cases in alerting/tests.

That the rules themselves are well formed is in test_recording_rules.py, which looks at every file of rules.
"""

from __future__ import annotations

import subprocess

import pytest

from ops.observability.expected_replicas import rules
from ops.project import ROOT

CASES = sorted((ROOT / "alerting/tests").glob("*.yaml"))


@pytest.fixture(scope="module")
def promtool(program):
    return program("PROMETHEUS_IMAGE", "/bin/promtool")


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name)
def test_alerts_fire_when_they_should_and_at_no_other_time(promtool, path):
    done = subprocess.run([promtool, "test", "rules", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_finds_nothing_wrong_with_what_is_wanted(promtool, tmp_path):
    wanted = tmp_path / "wanted.yaml"
    wanted.write_text(rules({"COMPOSE_PROFILES": "data-ha"}))
    done = subprocess.run([promtool, "check", "rules", wanted], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
