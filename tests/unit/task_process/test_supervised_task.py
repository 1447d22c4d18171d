"""When a task is terminated for its memory or its disk usage."""

from __future__ import annotations

import dataclasses
import os
import resource
import subprocess
import time

import pytest

from airflow_ha.task_process import (
    container_memory,
    container_pids,
    file_birth,
    limits,
    process_tree,
    supervised_task,
    usage,
    write_brake,
)
from airflow_ha.task_process.process_tree import TreeUse
from airflow_ha.task_process.usage import Disk

SIZE = 100 << 30
FULL = Disk(size=SIZE, used=99 << 30, free=1 << 30)
ROOMY = Disk(size=SIZE, used=10 << 30, free=90 << 30)
GIB = 1 << 30


@pytest.fixture
def task(tmp_path, monkeypatch):
    """A task with a limit of 2 GiB of memory and 10 GiB of disk; the test sets its usage."""
    given = limits.Limits(memory=2 * GIB, allocation=None, scratch=10 * GIB)
    monkeypatch.setattr(supervised_task, "limits", lambda: given)
    task = supervised_task.TaskRun(tmp_path, tmp_path / "no home")
    monkeypatch.setattr(task.use, "disk", lambda: FULL)
    yield task
    supervised_task.report_usage(0)
    task.close()


def uses(task, monkeypatch, used):
    monkeypatch.setattr(task.use, "measure", lambda *_: used)


def checks(task, times):
    return [task.check_disk([]) for _ in range(times)]


def test_biggest_task_is_terminated_on_a_nearly_full_disk(task, monkeypatch):
    uses(task, monkeypatch, GIB)
    *before, last = checks(task, supervised_task.SCARCE_CHECKS)
    assert before == [None] * (supervised_task.SCARCE_CHECKS - 1)
    assert last
    assert "No space left on device" in last


def test_bigger_task_of_the_worker_is_terminated_first(task, monkeypatch):
    other = os.getppid()
    at = other % supervised_task._USES * supervised_task._USE.size
    supervised_task._USE.pack_into(supervised_task._uses, at, other, 2 * GIB)
    uses(task, monkeypatch, GIB)
    assert checks(task, 5) == [None] * 5
    supervised_task._USE.pack_into(supervised_task._uses, at, other, 0)
    assert task.check_disk([])


def test_task_with_little_usage_survives_a_full_disk(task, monkeypatch):
    uses(task, monkeypatch, GIB // 10)
    assert checks(task, 5) == [None] * 5


def test_files_are_not_counted_while_the_disk_does_not_grow(task, monkeypatch):
    counted = []
    monkeypatch.setattr(task.use, "disk", lambda: ROOMY)
    monkeypatch.setattr(task.use, "measure", lambda *_: counted.append(1) or 11 * GIB)
    checks(task, supervised_task.PASSES - 1)
    assert not counted
    assert task.check_disk([])


@pytest.mark.parametrize(("disk", "least"), [(10 * GIB, 3 * GIB // 10), (1000 * GIB, 5 * GIB)])
def test_reserve_is_a_small_part_of_the_disk(disk, least):
    assert supervised_task.reserve(Disk(size=disk, used=0, free=disk)) == pytest.approx(least, rel=0.01)


@pytest.mark.parametrize(
    ("largest", "total", "exact", "is_over"),
    [
        (GIB, 2 * GIB, 9 * GIB, False),
        (3 * GIB, 3 * GIB, 0, True),
        (GIB, 5 * GIB, GIB, False),
        (GIB, 5 * GIB, 3 * GIB, True),
    ],
    ids=["under it at most", "one process", "forks that share", "forks that do not share"],
)
def test_task_over_its_memory_limit_is_terminated(task, monkeypatch, largest, total, exact, is_over):
    monkeypatch.setattr(process_tree, "measure", lambda _: TreeUse(threads=1, largest=largest, total=total))
    monkeypatch.setattr(task.use, "memory", lambda _: exact)
    breach = task.check()
    assert (breach and breach.reason) == ("oom" if is_over else None)
    if breach:
        assert all(words in breach.text for words in ("Out of memory", "3.0 GiB", "2.0 GiB", "TASK_MEMORY_LIMIT"))


@pytest.mark.parametrize(
    ("setting", "slots", "memory", "allocation"),
    [("", "8", 2 * GIB, None), ("", "1", None, None), ("3g", "8", 3 * GIB, 3 * GIB), ("3g", "1", 3 * GIB, 3 * GIB)],
)
def test_memory_limit_is_the_setting_or_half_the_worker(monkeypatch, setting, slots, memory, allocation):
    monkeypatch.setattr(container_memory, "memory_limit", lambda: 4 * GIB)
    monkeypatch.setenv("AIRFLOW_HA_TASK_MEMORY_LIMIT", setting)
    monkeypatch.setenv("AIRFLOW__CELERY__WORKER_CONCURRENCY", slots)
    found = limits.limits.__wrapped__()
    assert (found.memory, found.allocation) == (memory, allocation)


@pytest.mark.parametrize(("setting", "slots", "threads"), [("", "8", 512), ("", "1", None), ("100", "8", 100)])
def test_process_limit_is_the_setting_or_half_the_worker(monkeypatch, setting, slots, threads):
    monkeypatch.setattr(container_pids, "limit", lambda: 1024)
    monkeypatch.setenv("AIRFLOW_HA_TASK_PIDS_LIMIT", setting)
    monkeypatch.setenv("AIRFLOW__CELERY__WORKER_CONCURRENCY", slots)
    assert limits.limits.__wrapped__().threads == threads


def test_reserve_is_the_setting_if_there_is_one(monkeypatch):
    monkeypatch.setenv("AIRFLOW_HA_TASK_DISK_RESERVE", "20g")
    monkeypatch.setattr(supervised_task, "limits", limits.limits.__wrapped__)
    assert supervised_task.reserve(ROOMY) == 20 * GIB


def test_files_may_not_grow_while_the_disk_is_nearly_full(task, monkeypatch):
    uses(task, monkeypatch, 0)
    warnings = []
    task.watch(lambda _: None, warnings.append)
    with subprocess.Popen(["sleep", "60"]) as process:
        found = []
        for disk in (FULL, FULL, ROOMY, FULL):
            monkeypatch.setattr(task.use, "disk", lambda disk=disk: disk)
            task.check_disk([process.pid])
            found.append(resource.prlimit(process.pid, resource.RLIMIT_FSIZE)[0])
        process.kill()
    small = write_brake.SMALL
    assert found == [small, small, resource.RLIM_INFINITY, small]
    assert warnings == [supervised_task.BRAKED] * 2


def test_a_lower_limit_of_the_task_itself_stays():
    with subprocess.Popen(["sleep", "60"]) as process:
        _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
        write_brake.apply([process.pid])
        write_brake.release([process.pid])
        found = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        process.kill()
    assert found == (100, hard)


def test_older_files_of_a_volume_are_not_the_tasks(task, tmp_path):
    volume = tmp_path / "no home/artifacts"
    volume.mkdir(parents=True)
    own, older = volume / "own", volume / "older"
    with own.open("w") as file, older.open("w") as other:
        file.write("x" * 100_000)
        other.write("x" * 100_000)
        file.flush()
        other.flush()
        later = dataclasses.replace(task.use.places, since=time.time() + 60)
        found = [usage.open_files("self", places) or {} for places in (task.use.places, later)]
    paths = [{path for path, _ in files.values()} & {str(own), str(older)} for files in found]
    assert paths == [{str(own), str(older)}, set()]


def test_birth_is_when_the_file_was_created(tmp_path):
    before = int(time.time())
    file = tmp_path / "file"
    file.touch()
    os.utime(file, (0, 0))
    assert before <= (file_birth.born(str(file)) or 0) <= time.time()
    assert file_birth.born(str(tmp_path / "missing")) is None


def test_oom_kill_is_attributed_for_some_seconds(task, monkeypatch):
    assert not task.memory_ran_out()
    monkeypatch.setattr(container_memory, "oom_kills", lambda: 7)
    assert task.memory_ran_out()
    task.oom_seen -= supervised_task.OOM_SECONDS
    assert not task.memory_ran_out()


@pytest.mark.parametrize(
    ("text", "size"), [("", None), ("512m", 512 << 20), ("10G", 10 << 30), (" 2gb ", 2 << 30), ("4096", 4096)]
)
def test_size_setting_is_read_as_in_docker(text, size):
    assert limits.size_setting(text) == size


@pytest.mark.parametrize("text", ["1.5g", "-1m", "much", "10 g"])
def test_invalid_size_setting_is_refused(text):
    with pytest.raises(ValueError, match="size"):
        limits.size_setting(text)
