"""A task starts when its worker's container has room for its processes."""

from __future__ import annotations

import threading
import time

import pytest

from airflow_ha.task_process import container_pids


@pytest.fixture(params=["", "pids/"], ids=["version 2", "version 1"])
def container(tmp_path, request):
    """A container with a limit of 100; the test writes its count."""
    (tmp_path / request.param).mkdir(exist_ok=True)
    (tmp_path / f"{request.param}pids.max").write_text("100\n")
    return tmp_path, tmp_path / f"{request.param}pids.current"


def test_task_starts_at_once_in_a_container_with_room(container, monkeypatch):
    cgroup, current = container
    current.write_text("84\n")
    monkeypatch.setattr(container_pids, "WAIT_SECONDS", -1)
    assert container_pids.wait_for_room(cgroup)


def test_task_waits_for_room_and_then_starts(container):
    cgroup, current = container
    current.write_text("100\n")
    threading.Timer(0.5, current.write_text, ("20\n",)).start()
    started = time.monotonic()
    assert container_pids.wait_for_room(cgroup)
    assert 0.4 < time.monotonic() - started < 5


def test_task_does_not_wait_for_ever_for_room(container, monkeypatch):
    cgroup, current = container
    current.write_text("100\n")
    monkeypatch.setattr(container_pids, "WAIT_SECONDS", 0.1)
    assert not container_pids.wait_for_room(cgroup)


def test_container_without_a_limit_has_room(tmp_path, monkeypatch):
    (tmp_path / "pids.max").write_text("max\n")
    monkeypatch.setattr(container_pids, "WAIT_SECONDS", -1)
    assert container_pids.limit(tmp_path) is None
    assert container_pids.wait_for_room(tmp_path)
