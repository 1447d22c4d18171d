"""The bench `backup` makes full backups during half of its fan-outs, and leaves none."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from ops.bench import backup_load
from ops.errors import StackError

SETTINGS = {"COMPOSE_PROFILES": "data,backup"}


@pytest.fixture
def measurement(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A measurement of a stack on which each fan-out during backups lasts until one is complete."""
    commands: list[tuple[str, ...]] = []
    complete = threading.Event()

    def execute(container: str, *command: str) -> str:
        commands.append((container, *command))
        if "expire" in command:
            complete.set()
        return f"INFO: {backup_load.LABEL_LINE}20261130-010000F\nINFO: end\n"

    def run_and_wait(*_: object) -> Any:
        is_backing_up = any(thread.name.startswith("ThreadPoolExecutor") for thread in threading.enumerate())
        if is_backing_up:
            complete.clear()
            assert complete.wait(10)
        return SimpleNamespace(seconds=33.0 if is_backing_up else 30.0)

    monkeypatch.setattr(backup_load, "execute", execute)
    monkeypatch.setattr(backup_load, "run_and_wait", run_and_wait)
    monkeypatch.setattr(backup_load, "wait_until_idle", lambda *_: None)
    monkeypatch.setattr(backup_load, "services", lambda _: ("database", "files"))
    monkeypatch.setattr(backup_load, "sample_database", lambda *_: nullcontext())
    monkeypatch.setattr(backup_load.settings_file, "read", lambda _: SETTINGS)
    samples: dict[str, list[Any]] = {}
    return SimpleNamespace(
        project=None,
        target=SimpleNamespace(project="p", api=None),
        report=lambda _: None,
        round_numbers=lambda: range(1, 3),
        add=lambda _number, variant, sample, _summary: samples.setdefault(variant, []).append(sample),
        samples=samples,
        commands=commands,
    )


def test_each_variant_is_measured_in_each_round(measurement):
    backup_load.compare(measurement)
    assert [sample[backup_load.RUN] for sample in measurement.samples[backup_load.WITHOUT]] == [30.0, 30.0]
    during = measurement.samples[backup_load.DURING]
    assert [sample[backup_load.RUN] for sample in during] == [33.0, 33.0]
    assert all(sample[backup_load.BACKUP] >= 0 for sample in during)


def test_each_backup_has_its_files_and_is_removed(measurement):
    backup_load.compare(measurement)
    for made, files, removed in zip(*[iter(measurement.commands)] * 3, strict=True):
        assert "--type=full" in made[3]
        assert files[0] == "files"
        assert files[-2:] == ("local", "20261130-010000F")
        assert removed == ("database", "pgbackrest", "expire", "--repo=1", "--set=20261130-010000F")


def test_failed_backup_fails_the_bench(measurement, monkeypatch):
    def fails(*_: object) -> None:
        raise StackError("the repository is full")

    monkeypatch.setattr(backup_load, "full_backup", fails)
    monkeypatch.setattr(backup_load, "run_and_wait", lambda *_: SimpleNamespace(seconds=1.0))
    with pytest.raises(StackError, match="the repository is full"):
        backup_load.compare(measurement)


def test_stack_without_the_profile_is_refused(measurement, monkeypatch):
    monkeypatch.setattr(backup_load.settings_file, "read", lambda _: {"COMPOSE_PROFILES": "data"})
    with pytest.raises(StackError, match="profile backup is off"):
        backup_load.compare(measurement)
