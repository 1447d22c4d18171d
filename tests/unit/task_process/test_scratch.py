"""Task folders, and files that tasks leave in a worker's /tmp."""

from __future__ import annotations

import os
import time

import pytest

from airflow_ha.task_process import scratch, usage

DAY = 86400.0


@pytest.fixture
def tmp(tmp_path):
    folder = tmp_path / "tmp"
    folder.mkdir()
    return folder


@pytest.fixture
def changed(monkeypatch):
    """Set the age of a file; mtime replaces ctime, which no program can set."""
    monkeypatch.setattr(scratch, "last_change", lambda status: status.st_mtime)

    def change(path, ago):
        os.utime(path, times=(time.time() - ago,) * 2)
        return path

    return change


def test_worker_start_removes_files_of_its_previous_run(tmp, changed, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONFIG", str(tmp / "airflow.cfg"))
    monkeypatch.setenv("HOME", str(tmp / "home"))
    (tmp / "folder").mkdir()
    (tmp / "home").mkdir()
    changed(tmp / "home", 10)
    for name in ("folder/inner", "left", "airflow.cfg"):
        changed((tmp / name).parent, 10)
        (tmp / name).write_text("x")
        changed(tmp / name, 10)
    changed(tmp / "folder", 10)
    own_folder = scratch.create(tmp, tmp / "no home")
    (tmp / "task-00000000-1-other").mkdir()
    (tmp / "new").write_text("x")
    scratch.remove_leftovers(tmp, tmp, time.time() - 5)
    assert not own_folder.exists()
    assert {path.name for path in tmp.iterdir()} == {"airflow.cfg", "home", "new", "task-00000000-1-other"}


def test_sweep_removes_old_files_that_no_running_task_wrote(tmp, changed):
    (tmp / "folder").mkdir()
    (tmp / "folder/young").write_text("x")
    changed(tmp / "folder", 2 * DAY)
    for name in ("old", "kept", "airflow-ha-telemetry"):
        (tmp / name).write_text("x")
        changed(tmp / name, 2 * DAY)
    (tmp / "young").write_text("x")
    scratch.sweep(tmp, tmp, {"kept"}, time.time())
    assert {path.name for path in tmp.iterdir()} == {"folder", "kept", "airflow-ha-telemetry", "young"}


def test_sweep_keeps_files_that_a_running_task_may_have_written(tmp, changed):
    (tmp / f"{scratch.prefix()}{int(time.time() - 3 * DAY):x}-a").mkdir()
    (tmp / "old").write_text("x")
    changed(tmp / "old", 2 * DAY)
    scratch.sweep(tmp, tmp, (), time.time())
    assert (tmp / "old").exists()


def test_file_with_two_names_counts_once(tmp):
    (tmp / "inner").mkdir()
    (tmp / "inner/file").write_bytes(b"x" * 100_000)
    (tmp / "again").hardlink_to(tmp / "inner/file")
    (tmp / "link").symlink_to("/")
    assert 100_000 <= usage.folder_use(str(tmp)) < 150_000


def places(folder):
    return usage.Places(folder=str(folder / "folder"), scratch=(f"{folder}/",), volumes=(), since=0)


def test_file_shared_by_forks_counts_once(tmp):
    answers = usage.Answers()
    with (tmp / "file").open("wb") as file:
        file.write(b"x" * 100_000)
        file.flush()
        for _ in range(2):
            usage.OwnFiles(places(tmp), answers).answer()
        assert 100_000 <= sum(answers.read().values()) < 150_000


def test_closed_file_counts_until_it_is_deleted(tmp):
    answers = usage.Answers()
    own = usage.OwnFiles(places(tmp), answers)
    with (tmp / "file").open("wb") as file:
        file.write(b"x" * 100_000)
        file.flush()
        own.answer()
    own.answer()
    assert sum(answers.read().values()) >= 100_000
    (tmp / "file").unlink()
    own.answer()
    assert sum(answers.read().values()) == 0
