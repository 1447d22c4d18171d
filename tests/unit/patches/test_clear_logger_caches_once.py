"""A task's logging is set up as upstream does it, and the logger caches are cleared once."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from tests.unit.forks import in_forks

pytestmark = pytest.mark.processes

IMPORTS = """
import json, logging, os, socket
from airflow.sdk.execution_time import supervisor
"""
SET_UP = """
{load}
chatty = logging.getLogger("httpx")
chatty.isEnabledFor(logging.INFO)  # the answer is cached, and the cache must be cleared
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
"""Runs in its own process, as a task does."""


@pytest.fixture(scope="module")
def set_up():
    """The state of a task process after its logging setup, with and without the patch."""
    load = "from airflow_ha.patches import clear_logger_caches_once as patch; patch.apply()"
    patched, upstream = in_forks(IMPORTS, [SET_UP.format(load=load) for load in (load, "")])
    return SimpleNamespace(patched=json.loads(patched), upstream=json.loads(upstream))


def test_logger_caches_are_cleared_once(set_up):
    assert set_up.patched[0] == 1


def test_logging_works_as_upstream(set_up):
    assert set_up.patched[1:] == set_up.upstream[1:]
    assert set_up.patched[2:] == [False, "here", "airflow.mine"]


def test_upstream_clears_caches_for_each_logger(set_up):
    """If this fails, Airflow or Python is fixed: delete clear_logger_caches_once and this file."""
    assert set_up.upstream[0] > 20
