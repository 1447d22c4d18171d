"""A trigger that is at fault fails its own task; the others go on, and it does not come back after a restart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta

import pytest
from sqlalchemy.exc import DataError, InternalError, OperationalError, StatementError

from ops.project import ROOT

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
    "ExitsWhenMade",
]
FATAL = {
    "Segfault": "SIGSEGV",
    "ExitsAtOnce": "exit code 0",
    "Breaks": "SIGSEGV",
    "Sleeps": "blocked",
    "Spins": "blocked",
}
ALL = ",".join(["Good", "Many", *FAILED])
# Without the patch first: it stays for as long as its process lives.
GROUPS = ["upstream:Nul,Good", ALL, *(f"Good,{name}" for name in FATAL), "Outage"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What became of the triggers of each group, run by triggerer.py."""
    home = tmp_path_factory.mktemp("airflow")
    done = subprocess.run(
        [sys.executable, ROOT / "tests/unit/patches/triggerer.py", *GROUPS],
        env={
            **os.environ,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "PYTHONPATH": str(ROOT / "src"),
        },
        capture_output=True,
        text=True,
        timeout=400,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert len(lines) == len(GROUPS), done.stderr[-3000:]
    return dict(zip(GROUPS, (json.loads(line.removeprefix("RESULT ")) for line in lines), strict=True))


def test_a_refused_event_fails_its_own_trigger_only(results):
    found = results[ALL]
    assert {name for name, outcome in found["outcome"].items() if outcome.startswith("failed: ")} == set(FAILED)
    assert found["outcome"]["Good"] == found["outcome"]["Many"] == "event"
    assert found["error"] is None


def test_a_failure_has_its_reason(results):
    outcome = results[ALL]["outcome"]
    assert "a\\x00b" in outcome["Nul"]
    assert "4 MiB" in outcome["Large"]
    assert "no more" in outcome["Exits"]
    assert "\\ud800" in outcome["RaisesSurrogate"]


@pytest.mark.parametrize(("name", "reason"), FATAL.items())
def test_a_trigger_that_ends_or_blocks_the_process_is_failed(results, name, reason):
    found = results[f"Good,{name}"]
    assert set(found["outcome"]) == {name}
    assert reason in found["outcome"][name]


def test_an_outage_of_the_database_fails_no_trigger(results):
    assert results["Outage"]["outcome"] == {}
    assert results["Outage"]["error"] == "OperationalError"


def test_upstream_ends_at_a_nul(results):
    """When this fails, https://github.com/apache/airflow/issues/70385 is fixed: look what of the patch is left."""
    assert results["upstream:Nul,Good"]["error"] == "DataError"
    assert results["upstream:Nul,Good"]["outcome"] == {}


@pytest.fixture(scope="module")
def patch():
    """The module, without its effect on the Airflow of the other tests."""
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


def of_postgres(code: str) -> Exception:
    return type("Error", (Exception,), {"pgcode": code})("refused")


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (DataError("INSERT", {}, of_postgres("22P05")), True),
        (OperationalError("INSERT", {}, of_postgres("54000")), True),
        (StatementError("not JSON", "INSERT", {}, TypeError()), True),
        (ValueError("A string literal cannot contain NUL (0x00) characters."), True),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"), True),
        (OperationalError("INSERT", {}, of_postgres("57P01")), False),
        (OperationalError("INSERT", {}, of_postgres("53100")), False),
        (OperationalError("INSERT", {}, Exception("no connection")), False),
        (InternalError("INSERT", {}, of_postgres("25006")), False),
        (DataError("INSERT", {}, of_postgres("22P05"), connection_invalidated=True), False),
        (OSError("no space left"), False),
    ],
)
def test_only_an_error_about_the_data_is_a_refusal(patch, error, refused):
    assert patch.is_refusal(error) is refused


def test_a_long_reason_keeps_its_beginning_and_its_end(patch):
    (text,) = patch.storable(["begin\n", "x" * 1_000_000, "\nend\0\ud800"])
    assert len(text) < 40_000
    assert text.startswith("begin\n")
    assert text.endswith("\nend\\x00\\ud800")


def test_an_assets_trigger_that_ends_the_process_is_held(patch):
    """By a queue that no triggerer serves, whose name sorts by time."""
    now = patch.timezone.utcnow()
    until = patch.HELD + (now + patch.HOLD).strftime(patch.HELD_FORMAT)
    assert until > patch.HELD + (now + patch.HOLD - timedelta(minutes=1)).strftime(patch.HELD_FORMAT)
    assert until < patch.HELD + (now + patch.HOLD + timedelta(minutes=1)).strftime(patch.HELD_FORMAT)
