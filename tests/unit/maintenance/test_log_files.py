"""Old task logs go, by age and by size; links and the logs of active runs stay."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest

from airflow_ha.maintenance import log_files, pace
from airflow_ha.maintenance.retention import DAY
from airflow_ha.sizes import GIB
from tests.retention_limits import LIMITS

NOW = time.time()


@pytest.fixture
def quick(tmp_path_factory):
    return pace.Pace(tmp_path_factory.mktemp("pace") / "alive")


def write(root, name: str, days: float, size: int = 10):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (NOW - days * DAY,) * 2)
    return path


def age_folders(root, days: float) -> None:
    for folder, _, _ in os.walk(root, topdown=False):
        os.utime(folder, (NOW - days * DAY,) * 2)


def remove(root, quick, days=30.0, active=(), *, is_dry_run=False):
    return log_files.remove(root, lambda _: NOW - days * DAY, lambda _: active, quick, is_dry_run=is_dry_run)


def left(root) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir() or path.is_symlink()}


def test_files_older_than_the_limit_go(tmp_path, quick):
    write(tmp_path, "dag_id=a/run_id=1/task_id=t/attempt=1.log", 31)
    write(tmp_path, "dag_processor/2026/a.py.log", 31)
    write(tmp_path, "dag_id=a/run_id=1/task_id=t/attempt=2.log", 29)
    assert remove(tmp_path, quick, is_dry_run=True).number == 2
    assert len(left(tmp_path)) == 3
    assert remove(tmp_path, quick)[:2] == ("logs", 2)
    assert left(tmp_path) == {"dag_id=a/run_id=1/task_id=t/attempt=2.log"}


def test_logs_of_active_runs_stay(tmp_path, quick):
    for run in ("1", "2"):
        write(tmp_path, f"dag_id=a/run_id={run}/task_id=t/attempt=1.log", 31)
    asked = []
    result = log_files.remove(
        tmp_path, lambda _: NOW - 30 * DAY, lambda dag_id: asked.append(dag_id) or {"1"}, quick, is_dry_run=False
    )
    assert (asked, result.number) == (["a"], 1)
    assert left(tmp_path) == {"dag_id=a/run_id=1/task_id=t/attempt=1.log"}


def test_empty_folders_go_a_run_later(tmp_path, quick):
    """A removal changes the folder, and a try that starts meanwhile keeps the folder that it just created."""
    write(tmp_path, "dag_id=a/run_id=1/task_id=t/attempt=1.log", 31)
    age_folders(tmp_path / "dag_id=a", 31)
    remove(tmp_path, quick)
    assert (tmp_path / "dag_id=a/run_id=1/task_id=t").exists()
    for _ in range(2):
        age_folders(tmp_path / "dag_id=a", 1.1)
        remove(tmp_path, quick)
    assert not (tmp_path / "dag_id=a/run_id=1").exists()


def test_no_link_is_followed(tmp_path, quick):
    outside = write(tmp_path, "outside/secret", 31)
    root = tmp_path / "logs"
    (root / "dag_id=a/run_id=1").mkdir(parents=True)
    (root / "dag_id=b").symlink_to(tmp_path / "outside")
    (root / "dag_id=a/run_id=2").symlink_to(tmp_path / "outside")
    (root / "dag_id=a/run_id=1/attempt=1.log").symlink_to(outside)
    remove(root, quick)
    assert outside.exists()
    assert log_files.sizes_by_day(root, NOW, quick).total() == 0


@pytest.mark.parametrize(
    ("sizes", "allowed", "days"),
    [
        ({}, 0, None),
        ({0: 50, 3: 50}, 100, None),
        ({0: 50, 3: 50, 9: 1}, 100, 9),
        ({0: 50, 3: 51, 9: 50}, 100, 3),
        ({0: 500, 1: 1}, 100, 1),  # the last day stays
        ({0: 99, 1: 2}, 100, 1),
    ],
)
def test_the_oldest_days_go_until_the_rest_fits(sizes, allowed, days):
    assert log_files.fitting_days(sizes, allowed) == days


@pytest.mark.parametrize(
    ("size", "percent", "disk", "allowed"),
    [
        (0, 100, (99, 1), None),
        (0, 85, (85, 15), None),
        (7 * GIB, 85, (50 * GIB, 50 * GIB), 7 * GIB),
        (0, 85, (90 * GIB, 10 * GIB), 3 * GIB),  # 5 of 8 GiB go
        (2 * GIB, 85, (90 * GIB, 10 * GIB), 2 * GIB),
        (0, 85, (99 * GIB, 1 * GIB), 0),  # something else fills the disk
    ],
)
def test_logs_may_fill_their_size_and_not_the_disk(size, percent, disk, allowed):
    kept = replace(LIMITS, logs_bytes=size, disk_percent=percent)
    assert log_files.allowed_bytes(kept, 8 * GIB, disk) == allowed


def test_logs_that_do_not_fit_go_by_age(tmp_path, quick):
    for days in (0.5, 2.5, 5.5):
        write(tmp_path, f"dag_id=a/run_id={days}/attempt=1.log", days, 64 * 1024)
    kept = replace(LIMITS, logs_bytes=130 * 1024)
    oldest = log_files.oldest_allowed(tmp_path, kept, NOW, quick)
    assert oldest == pytest.approx(NOW - 5 * DAY)
    log_files.remove(tmp_path, lambda _: oldest, lambda _: (), quick, is_dry_run=False)
    assert left(tmp_path) == {"dag_id=a/run_id=0.5/attempt=1.log", "dag_id=a/run_id=2.5/attempt=1.log"}
