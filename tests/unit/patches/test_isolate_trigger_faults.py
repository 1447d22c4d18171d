"""A faulty trigger fails only its own task, and does not run again after a restart."""

from __future__ import annotations

import sys
from datetime import timedelta

import pytest
from sqlalchemy.exc import DataError, InternalError, OperationalError, StatementError

from tests.unit.patches.programs import run_program

pytestmark = pytest.mark.processes

FAILED = [
    "Nul",
    "Surrogate",
    "LargeInteger",
    "Unserializable",
    "Circle",
    "Large",
    "Exits",
    "RaisesSurrogate",
    "NoEvent",
    "RefusesArguments",
    "ExitsInConstructor",
]
FATAL = {
    "Segfault": "SIGSEGV",
    "ExitsAtOnce": "exit code 0",
    "Breaks": "SIGSEGV",
    "Sleeps": "blocked",
    "Spins": "blocked",
}
ALL = ",".join(["Good", "Many", *FAILED])
# The group without the patch comes first, because the patch stays applied in its process.
GROUPS = ["upstream:Nul,Good", ALL, *(f"Good,{name}" for name in FATAL), "Outage"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The outcome of each group of triggers, as triggerer.py reports it."""
    home = tmp_path_factory.mktemp("airflow")
    return dict(zip(GROUPS, run_program("triggerer.py", home, *GROUPS, timeout=400), strict=True))


def test_refused_event_fails_only_its_own_trigger(results):
    group = results[ALL]
    assert {name for name, outcome in group["outcome"].items() if outcome.startswith("failed: ")} == set(FAILED)
    assert group["outcome"]["Good"] == group["outcome"]["Many"] == "event"
    assert group["error"] is None


def test_failure_states_its_reason(results):
    outcome = results[ALL]["outcome"]
    assert "a\\x00b" in outcome["Nul"]
    assert "4 MiB" in outcome["Large"]
    assert "no more" in outcome["Exits"]
    assert "\\ud800" in outcome["RaisesSurrogate"]


@pytest.mark.parametrize(("name", "reason"), FATAL.items())
def test_trigger_that_ends_or_blocks_the_runner_fails(results, name, reason):
    group = results[f"Good,{name}"]
    assert set(group["outcome"]) == {name}
    assert reason in group["outcome"][name]


def test_database_outage_fails_no_trigger(results):
    assert results["Outage"]["outcome"] == {}
    assert results["Outage"]["error"] == "OperationalError"


def test_upstream_triggerer_ends_at_a_nul_character(results):
    """If this fails, https://github.com/apache/airflow/issues/70385 is fixed: check which parts are still needed."""
    assert results["upstream:Nul,Good"]["error"] == "DataError"
    assert results["upstream:Nul,Good"]["outcome"] == {}


@pytest.fixture(scope="module")
def patch():
    """The module, without its effect on Airflow in this process."""
    from airflow.jobs import triggerer_job_runner

    names = ["TriggerRunnerSupervisor", "TriggerRunner"]
    before = {name: dict(vars(getattr(triggerer_job_runner, name))) for name in names}
    import airflow_ha.patches.isolate_trigger_faults as module

    for name, attributes in before.items():
        holder = getattr(triggerer_job_runner, name)
        for attribute, value in attributes.items():
            if vars(holder)[attribute] is not value:
                setattr(holder, attribute, value)
    yield module
    del sys.modules["airflow_ha.patches.isolate_trigger_faults"]


def postgres_error(code: str) -> Exception:
    return type("Error", (Exception,), {"pgcode": code})("refused")


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (DataError("INSERT", {}, postgres_error("22P05")), True),
        (OperationalError("INSERT", {}, postgres_error("54000")), True),
        (StatementError("not JSON", "INSERT", {}, TypeError()), True),
        (ValueError("A string literal cannot contain NUL (0x00) characters."), True),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"), True),
        (OperationalError("INSERT", {}, postgres_error("57P01")), False),
        (OperationalError("INSERT", {}, postgres_error("53100")), False),
        (OperationalError("INSERT", {}, Exception("no connection")), False),
        (InternalError("INSERT", {}, postgres_error("25006")), False),
        (DataError("INSERT", {}, postgres_error("22P05"), connection_invalidated=True), False),
        (OSError("no space left"), False),
    ],
)
def test_only_a_data_error_is_a_refusal(patch, error, refused):
    assert patch.is_refusal(error) is refused


def test_asset_trigger_that_ends_the_runner_is_held(patch):
    """The name of its queue, which no triggerer serves, sorts by time."""
    now = patch.timezone.utcnow()
    until = patch.HELD + (now + patch.HOLD).strftime(patch.HELD_FORMAT)
    assert until > patch.HELD + (now + patch.HOLD - timedelta(minutes=1)).strftime(patch.HELD_FORMAT)
    assert until < patch.HELD + (now + patch.HOLD + timedelta(minutes=1)).strftime(patch.HELD_FORMAT)
