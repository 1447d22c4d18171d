"""What restore drills count, promise and refuse, and their recorded results."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from ops.__main__ import app
from ops.ci import readme
from ops.commands import drill as command
from ops.drills import restore_drills, restore_results
from ops.drills.restore_drills import LOST_SECONDS, READY_SECONDS, RESTORE_DRILLS, RestoreOutcome, losses
from ops.errors import StackError
from ops.markdown_table import table_rows

KEPT = RestoreOutcome("database-lost", "data", "volume", 1.0, 20, 20.0, None, 90.0, 120.0)


def test_lost_rows_count_from_the_oldest():
    assert losses(["10.0", "11.0", "12.0"], ["9.0", "10.0"], 12.5) == (2, 1.5)


def test_row_missing_between_restored_ones_is_lost():
    assert losses(["10.0", "11.0", "12.0"], ["10.0", "12.0"], 12.5) == (1, 1.5)


def test_without_a_lost_row_nothing_is_lost():
    assert losses(["10.0"], ["10.0", "11.0"], 12.5) == (0, 0.0)


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        ({"lost_seconds": LOST_SECONDS + 1}, "rows"),
        ({"ready_after": READY_SECONDS + 1}, "ready"),
        ({"pipeline_after": None}, "pipeline"),
    ],
)
def test_each_promise_can_be_broken(broken, promise):
    assert KEPT.broken == ()
    (sentence,) = replace(KEPT, **broken).broken
    assert promise in sentence


@pytest.fixture
def stack(monkeypatch):
    """A stack whose restore is a process that ends after SECONDS, with that exit code."""

    def restore_takes(seconds, code=0):
        program = f"import sys, time; time.sleep({seconds}); sys.exit({code})"
        monkeypatch.setattr(
            restore_drills, "start_restore", lambda _: subprocess.Popen([sys.executable, "-c", program])
        )
        return SimpleNamespace(report=lambda _: None, restore_seconds=0.2)

    return restore_takes


def test_restore_is_killed_within_its_duration(stack):
    assert 0 < restore_drills.kill_restore(stack(30)) < 0.2


def test_restore_that_ends_early_is_not_killed(stack, monkeypatch):
    monkeypatch.setattr(restore_drills.random, "uniform", lambda low, high: 20.0)
    assert restore_drills.kill_restore(stack(0)) is None


def test_failed_restore_ends_the_drill(stack):
    with pytest.raises(StackError, match="exit code 3"):
        restore_drills.restore(stack(0, code=3))


@pytest.mark.parametrize("options", [["worker-crash"], ["--all"], ["--alerts"], ["--stock"]])
def test_restore_drill_runs_alone(options):
    result = CliRunner().invoke(app, ["drill", "database-lost", "--yes", *options])
    assert isinstance(result.exception, StackError)


def test_restore_drill_asks_before_it_replaces_the_database(monkeypatch):
    monkeypatch.setattr(command, "run_restore_drills", pytest.fail)
    result = CliRunner().invoke(app, ["drill", "database-lost"])
    assert "--yes" in result.exception.hint


def test_stack_without_backups_is_refused():
    with (
        pytest.raises(StackError, match="profile backup is off"),
        restore_drills.prepare_restores(command.current_project(), {"COMPOSE_PROFILES": "data"}, 1.0, print),
    ):
        pass


def test_storage_without_backups_is_refused_before_the_loss():
    settings = {"COMPOSE_PROFILES": "data,backup", "BACKUP_STORAGE": "local"}
    with (
        pytest.raises(StackError, match="stores no backups there"),
        restore_drills.prepare_restores(command.current_project(), settings, 1.0, print, "s3"),
    ):
        pass


@pytest.mark.parametrize(
    ("settings", "storage", "kind"),
    [
        ({}, None, "volume"),
        ({"BACKUP_FOLDER": "./folder"}, "local", "folder"),
        ({"BACKUP_STORAGE": "s3"}, "s3", "s3"),
        ({"BACKUP_STORAGE": "local,s3"}, None, "volume,s3"),
        ({"BACKUP_STORAGE": "local,s3"}, "s3", "s3 of volume,s3"),
    ],
)
def test_results_name_the_storage_that_was_restored_from(settings, storage, kind):
    assert restore_drills.repository_kind(settings, storage) == kind


def record(recorded, *outcomes):
    return restore_results.merged(recorded, outcomes, "2 cores and 8 GiB", "2026-11-30")


def test_page_matches_the_recorded_results():
    text = restore_results.PAGE.read_text(encoding="utf-8")
    assert readme.filled(text, restore_results.PART, restore_results.table(restore_results.read())) == text


def test_recorded_restores_are_of_drills_that_exist():
    names = {outcome["drill"] for series in restore_results.read().values() for outcome in series["outcomes"]}
    assert names <= {drill.name for drill in RESTORE_DRILLS}


def test_row_has_median_and_worst_of_a_series():
    times = [replace(KEPT, lost_seconds=lost, ready_after=ready) for lost, ready in ((5, 80), (61, 90), (30, 100))]
    assert table_rows(restore_results.table(record({}, *times))) == [
        ("`database-lost`", "`data`", "volume", "3", "30 s (61 s)", "90 s (100 s)", "120 s (120 s)", "2 of 3 times")
    ]


def test_new_series_replaces_only_that_of_its_tier_and_repository():
    recorded = record({}, KEPT, replace(KEPT, tier="data-ha"), replace(KEPT, repository="folder"))
    updated = record(recorded, replace(KEPT, pipeline_after=None))
    rows = table_rows(restore_results.table(updated))
    assert [(row[1], row[2], row[6]) for row in rows] == [
        ("`data`", "folder", "120 s (120 s)"),
        ("`data`", "volume", "never"),
        ("`data-ha`", "volume", "120 s (120 s)"),
    ]


def test_write_updates_results_and_page_together(tmp_path, monkeypatch):
    page, results = tmp_path / "README.md", tmp_path / "restores.json"
    page.write_text("".join(["# Title\n", *readme.marks(restore_results.PART)]))
    results.write_text("{}")
    monkeypatch.setattr(restore_results, "PAGE", page)
    monkeypatch.setattr(restore_results, "RESULTS", results)
    restore_results.write([KEPT], "2 cores", "2026-11-30")
    assert restore_results.table(restore_results.read()) in page.read_text()
