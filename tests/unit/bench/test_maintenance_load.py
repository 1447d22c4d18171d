"""The bench `maintenance` removes only what it created, also after a failure."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from ops.bench import maintenance_load
from ops.errors import StackError


@pytest.fixture
def measurement(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A measurement of a stack whose runs' first tasks start after 1, 2, 3, … s."""
    executed: list[str] = []
    delays = itertools.count(1)
    monkeypatch.setattr(maintenance_load, "execute", lambda _container, *arguments: executed.append(arguments[0]))
    monkeypatch.setattr(maintenance_load, "wait_until_idle", lambda *_: None)
    monkeypatch.setattr(maintenance_load, "run_and_wait", lambda *_: None)
    monkeypatch.setattr(maintenance_load, "first_task_delay", lambda *_: float(next(delays)))
    monkeypatch.setattr(
        maintenance_load.maintenance, "running_container", lambda _: SimpleNamespace(id="m", waits_for="")
    )
    samples: dict[str, Any] = {}
    return SimpleNamespace(
        target=SimpleNamespace(project="p", api=None),
        report=lambda _: None,
        round_numbers=lambda: range(1, 2),
        add=lambda _number, variant, sample, _summary: samples.update({variant: sample}),
        samples=samples,
        executed=executed,
    )


def test_runs_follow_one_another_until_the_removal_ends(measurement, monkeypatch):
    monkeypatch.setattr(maintenance_load.maintenance, "command", lambda *_: ["true"])
    maintenance_load.compare(measurement)
    before, during = measurement.samples["before"], measurement.samples["during"]
    # Five runs warm up.
    assert before[maintenance_load.DELAY] == 5 + 0.95 * maintenance_load.PROBES
    assert before["runs"] == maintenance_load.PROBES
    assert during["runs"] >= 1
    assert measurement.executed == ["create", "remove"]


def test_a_failed_removal_is_a_failure_and_leaves_nothing(measurement, monkeypatch):
    monkeypatch.setattr(maintenance_load.maintenance, "command", lambda *_: ["false"])
    with pytest.raises(StackError, match="cannot complete maintenance"):
        maintenance_load.compare(measurement)
    assert measurement.executed == ["create", "remove"]


def test_a_stack_that_waits_for_approval_is_refused(measurement, monkeypatch):
    waiting = SimpleNamespace(id="m", waits_for="waits for approval")
    monkeypatch.setattr(maintenance_load.maintenance, "running_container", lambda _: waiting)
    with pytest.raises(StackError, match="waits for approval"):
        maintenance_load.compare(measurement)
    assert measurement.executed == []
