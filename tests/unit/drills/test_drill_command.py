"""Refusals and recorded results of `./ops/stack drill`."""

from __future__ import annotations

import json
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from ops.__main__ import app
from ops.commands import drill as command
from ops.drills.catalogue import Drill, one_instance
from ops.errors import StackError
from tests.unit.drills.outcomes import make_outcome

DRILLS = [Drill(name, one_instance("scheduler"), "crash") for name in ("host", "scheduler-crash")]


@pytest.fixture
def written(monkeypatch):
    """Record the drills' names of each call that writes results, and whether it was for a stock Airflow."""
    calls = []

    def write(outcomes, machine, date, *, stock):
        calls.append(([outcome.drill for outcome in outcomes], stock))

    monkeypatch.setattr(command.results, "write", write)
    return calls


@contextmanager
def environment(run):
    yield run


def test_stock_while_the_stack_runs_is_refused(monkeypatch):
    monkeypatch.setattr(command.compose, "instances", lambda name: {"worker": [SimpleNamespace(state="running")]})
    with pytest.raises(StackError) as error:
        command.settings_of_stopped_stack(command.current_project())
    assert "./ops/stack down" in error.value.hint


def test_stock_with_alerts_is_refused():
    result = CliRunner().invoke(app, ["drill", "redis", "--stock", "--alerts"])
    assert isinstance(result.exception, StackError)


def test_complete_series_is_written_if_a_later_drill_fails(written):
    def run(drill):
        if drill.name == "scheduler-crash":
            raise StackError("no scheduler runs")
        return make_outcome(drill.name)

    with pytest.raises(StackError):
        command.run_drills(DRILLS, environment(run), repeat=2, as_json=False, write=True)
    assert written == [(["host", "host"], False)]


def test_incomplete_series_is_not_written(written):
    completed = []

    def run(drill):
        if len(completed) == 3:
            raise StackError("no scheduler runs")
        completed.append(drill.name)
        return make_outcome(drill.name)

    with pytest.raises(StackError):
        command.run_drills(DRILLS, environment(run), repeat=2, as_json=False, write=True, stock=True)
    assert written == [(["host", "host"], True)]


def test_without_write_nothing_is_written(written, capsys):
    all_kept = command.run_drills(
        DRILLS, environment(lambda drill: make_outcome(drill.name)), repeat=1, as_json=True, write=False
    )
    output = capsys.readouterr().out
    assert (all_kept, written) == (True, [])
    assert [each["drill"] for each in json.loads(output[output.index("[\n") :])] == ["host", "scheduler-crash"]


def test_broken_promise_is_returned(written):
    outcome = make_outcome("host", broken=("1 tasks lost",))
    assert not command.run_drills(DRILLS[:1], environment(lambda _: outcome), repeat=1, as_json=True, write=False)
