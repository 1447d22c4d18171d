"""The advice on the Docker daemon's own settings."""

from __future__ import annotations

import json

import pytest

from ops.docker_daemon import ICC, UNBOUNDED_LOG, advice, advice_on
from ops.project import ROOT

HARDENED = {
    "SecurityOptions": ["name=seccomp,profile=builtin", "name=no-new-privileges"],
    "LiveRestoreEnabled": True,
    "LoggingDriver": "local",
}
STOCK = {"SecurityOptions": ["name=seccomp"], "LiveRestoreEnabled": False, "LoggingDriver": UNBOUNDED_LOG}
NO_ICC = {ICC: "false"}


def test_a_hardened_daemon_needs_no_advice():
    assert advice_on(HARDENED, NO_ICC) is None


@pytest.mark.parametrize(
    ("change", "bridge", "setting"),
    [
        ({"LiveRestoreEnabled": False}, NO_ICC, "live-restore"),
        ({"SecurityOptions": []}, NO_ICC, "no-new-privileges"),
        ({}, {ICC: "true"}, "icc=false"),
        ({"LoggingDriver": UNBOUNDED_LOG}, NO_ICC, "log-driver=local"),
        ({"SecurityOptions": ["name=no-new-privileges", "name=userns"]}, NO_ICC, "userns-remap"),
    ],
)
def test_each_setting_is_named_alone(change, bridge, setting):
    line = advice_on(HARDENED | change, bridge)
    assert line
    settings = ["live-restore", "no-new-privileges", "icc=false", "log-driver=local", "userns-remap"]
    assert [name for name in settings if name in line] == [setting]


def test_advice_of_a_stock_daemon_is_one_line_and_documented(docker):
    docker.answer("info", out=json.dumps(STOCK))
    docker.answer("network inspect", out=json.dumps({ICC: "true"}))
    line = advice()
    assert line
    assert "\n" not in line
    text = (ROOT / "ops/README.md").read_text().partition("## Docker daemon")[2]
    for setting in ("live-restore", "no-new-privileges", "icc", "log-driver", "userns-remap"):
        assert f'"{setting}"' in text, setting


def test_docker_that_reports_nothing_gets_no_advice(docker):
    assert advice() is None
