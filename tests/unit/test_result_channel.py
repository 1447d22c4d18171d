"""Results of a pool process reach the database through the worker's main process."""

from __future__ import annotations

import os
import select
import threading
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy
from celery import Celery

from airflow_ha import result_backend, result_channel
from airflow_ha.result_channel import ResultChannel, line_of, store_for_a_while


@pytest.fixture
def channel(monkeypatch):
    """A channel, and the backend of a pool process that uses it."""
    made = ResultChannel()
    monkeypatch.setattr(result_backend, "send", made.send)
    return made


@pytest.fixture
def backend(tmp_path):
    url = f"db+sqlite:///{tmp_path}/nothing"  # a use of the database would fail
    backends = {"db": "airflow_ha.result_backend:ResultBackend"}
    return Celery(set_as_current=False, config_source={"result_backend": url, "override_backends": backends}).backend


def test_results_of_several_processes_are_stored(channel, backend):
    stored: list[dict[str, Any]] = []
    children = []
    for number in range(3):
        if not (child := os.fork()):
            backend.mark_as_done(f"done {number}", None)
            backend.mark_as_failure(f"failed {number}", KeyError("none"), traceback="its traceback")
            os._exit(0)
        children.append(child)
    channel.start(stored.append)
    for child in children:
        os.waitpid(child, 0)
    backend.mark_as_revoked("by the main process", "revoked")
    channel.drain()
    states = {values["task_id"]: (values["status"], values["traceback"]) for values in stored}
    assert states == {
        **{f"done {number}": ("SUCCESS", None) for number in range(3)},
        **{f"failed {number}": ("FAILURE", "its traceback") for number in range(3)},
        "by the main process": ("REVOKED", None),
    }


def test_results_that_precede_the_thread_are_stored(channel, backend):
    stored: list[dict[str, Any]] = []
    backend.mark_as_done("early", None)
    channel.start(stored.append)
    channel.drain()
    assert [values["task_id"] for values in stored] == ["early"]


def test_long_traceback_keeps_its_end():
    values = {"task_id": "one", "status": "FAILURE", "traceback": "é\n" * 100_000 + "KeyError: none"}
    line = line_of(values)
    assert len(line) <= select.PIPE_BUF
    assert line.count(b"\n") == 1
    assert b'KeyError: none"' in line


def outage(number: int, error: Any = sqlalchemy.exc.OperationalError):
    """Return a function that stores after some errors, and its calls."""
    calls: list[dict[str, Any]] = []

    def store(values: dict[str, Any]) -> None:
        calls.append(values)
        if len(calls) <= number:
            raise error("store", {}, OSError("no connection"))

    return store, calls


@pytest.mark.parametrize("error", [sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError])
def test_a_database_outage_delays_a_result(monkeypatch, error):
    monkeypatch.setattr(result_channel, "PAUSE_SECONDS", 0)
    store, calls = outage(3, error)
    store_for_a_while(store, {"task_id": "one"})
    assert len(calls) == 4


def test_a_statement_that_fails_is_tried_once_with_its_connection(backend, monkeypatch):
    monkeypatch.setattr(result_backend, "send", None)
    tries: list[str] = []
    discarded: list[str] = []

    def fails() -> None:
        tries.append("store")
        raise sqlalchemy.exc.OperationalError("store", {}, OSError("no connection"))

    monkeypatch.setattr(backend, "ResultSession", lambda: SimpleNamespace(execute=lambda *_: fails(), **SESSION))
    monkeypatch.setattr(backend.session_manager, "invalidate", discarded.append)
    with pytest.raises(sqlalchemy.exc.OperationalError):
        backend.mark_as_done("one", None)
    assert tries == ["store"]
    assert discarded == [backend.url]


SESSION: dict[str, Any] = {"rollback": lambda: None, "close": lambda: None}


def test_a_result_that_is_never_accepted_delays_no_other(monkeypatch):
    monkeypatch.setattr(result_channel, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(result_channel, "RETRY_SECONDS", 0.01)
    store, calls = outage(10**9)
    thread = threading.Thread(target=store_for_a_while, args=(store, {"task_id": "one"}), daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert calls
