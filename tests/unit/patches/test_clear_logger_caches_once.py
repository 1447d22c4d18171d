"""A task's logging is set up as upstream does it, and the loggers' caches are cleared once."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from tests.unit.forks import in_forks

IMPORTS = """
import json, logging, os, socket
from airflow.sdk.execution_time import supervisor
"""
SET_UP = """
{load}
chatty = logging.getLogger("httpx")
chatty.isEnabledFor(logging.INFO)  # its answer is kept, and must not be
cleared, clear = [], logging.Manager._clear_cache
logging.Manager._clear_cache = lambda self: cleared.append(clear(self))
ours, theirs = socket.socketpair()
supervisor._configure_logs_over_json_channel(theirs.fileno())
logging.getLogger("airflow.mine").info("here")
line = json.loads(ours.recv(65536))
names = ("", "airflow", "airflow.models.dag", "httpx")
levels = {{name: logging.getLogger(name).getEffectiveLevel() for name in names}}
print(json.dumps([len(cleared), levels, chatty.isEnabledFor(logging.INFO), line["event"], line["logger"]]))
"""
"""In a process of its own, as a task's."""


@pytest.fixture(scope="module")
def set_up():
    """What is so after a task's process has set up its logging, with and without the patch."""
    load = "from airflow_ha.patches import clear_logger_caches_once as patch; patch.apply()"
    ours, upstreams = in_forks(IMPORTS, [SET_UP.format(load=load) for load in (load, "")])
    return SimpleNamespace(ours=json.loads(ours), upstreams=json.loads(upstreams))


def test_caches_are_cleared_once(set_up):
    assert set_up.ours[0] == 1


def test_logging_is_as_upstreams(set_up):
    assert set_up.ours[1:] == set_up.upstreams[1:]
    assert set_up.ours[2:] == [False, "here", "airflow.mine"]


def test_upstream_still_clears_them_for_each_logger(set_up):
    """When this fails, Airflow or Python has fixed it: delete clear_logger_caches_once and this file."""
    assert set_up.upstreams[0] > 20
