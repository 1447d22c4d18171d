"""What `./ops/stack drill` refuses, and what it writes down."""

from __future__ import annotations

import json
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from ops.__main__ import app
from ops.commands import drill as command
from ops.drills.catalogue import Drill, one
from ops.errors import StackError
from tests.unit.drills.test_results import outcome

DRILLS = [Drill(name, one("scheduler"), "crash", 0, "interruption", 5) for name in ("host", "scheduler-crash")]


@pytest.fixture
def written(monkeypatch):
    """What was put into results.json."""
    found = []
    monkeypatch.setattr(
        command.results, "write", lambda outcomes, machine, date, *, stock: found.append((outcomes, stock))
    )
    return found


@contextmanager
def place(strike):
    yield strike


def test_a_stock_airflow_shares_the_machine_with_no_stack(monkeypatch):
    monkeypatch.setattr(command.compose, "instances", lambda name: {"worker": [SimpleNamespace(state="running")]})
    with pytest.raises(StackError, match="the stack runs") as refused:
        command.settings_beside_nothing(command.current_project())
    assert "./ops/stack down" in refused.value.hint


def test_a_stock_airflow_has_no_alarms():
    refused = CliRunner().invoke(app, ["drill", "redis", "--stock", "--alarms"])
    assert isinstance(refused.exception, StackError)


def test_every_series_that_is_complete_is_written_also_when_a_later_drill_cannot_be_held(written):
    def strike(drill):
        if drill.name == "scheduler-crash":
            raise StackError("none runs here")
        return outcome(drill.name)

    with pytest.raises(StackError):
        command.hold_drills(DRILLS, place(strike), repeat=2, as_json=False, write=True)
    ((outcomes, stock),) = written
    assert ([one.drill for one in outcomes], stock) == (["host", "host"], False)


def test_a_series_that_was_not_completed_replaces_none(written):
    held = []

    def strike(drill):
        if len(held) == 3:
            raise StackError("none runs here")
        held.append(drill.name)
        return outcome(drill.name)

    with pytest.raises(StackError):
        command.hold_drills(DRILLS, place(strike), repeat=2, as_json=False, write=True, stock=True)
    ((outcomes, stock),) = written
    assert ([one.drill for one in outcomes], stock) == (["host", "host"], True)


def test_nothing_is_written_unless_asked_for(written, capsys):
    broken = command.hold_drills(DRILLS, place(lambda drill: outcome(drill.name)), repeat=1, as_json=True, write=False)
    shown = capsys.readouterr().out
    assert (broken, written) == (False, [])
    assert [one["drill"] for one in json.loads(shown[shown.index("[\n") :])] == ["host", "scheduler-crash"]
