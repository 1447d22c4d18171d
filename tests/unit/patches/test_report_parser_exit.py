"""A DAG file that crashes or blocks its parser is an import error with a reason; other files are parsed."""

from __future__ import annotations

import os
import subprocess
import time
from datetime import timedelta
from types import SimpleNamespace

import pytest

from tests.unit.patches.programs import run_program

pytestmark = pytest.mark.processes

FILE = """
import ctypes, os, signal, subprocess, time
from airflow.sdk import DAG
{statement}
with DAG("{name}", schedule=None):
    pass
"""
GOOD = {"good": "", "leaves_a_process": "subprocess.Popen(['sleep', '100'])"}
FAULTS = {
    "exits": ("os._exit(0)", "exit code 0"),
    "segfault": ("ctypes.string_at(0)", "SIGSEGV"),
    "aborts": ("os.abort()", "SIGABRT"),
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
    "signals_its_group": ("os.killpg(0, signal.SIGTERM)", "SIGTERM"),
    "stuck": ("signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])\nwhile True: pass", "6 s"),
    "raises_nul": (r"raise ValueError('a\0b')", r"a\x00b"),
    "refused": ("", "cannot contain NUL"),  # by dag_processor.py
    "surrogate": ("", r"\ud800"),
}


def parse(folder, home, *arguments: str) -> dict[str, dict]:
    """Return the stored result of each file, as dag_processor.py reports it."""
    return run_program("dag_processor.py", home, folder, *arguments, timeout=200)[-1]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dags")
    statements = {**GOOD, **{name: statement for name, (statement, _) in FAULTS.items()}}
    for name, statement in statements.items():
        text = FILE.format(name=name, statement=statement)
        (folder / f"{name}.py").write_text(text.replace('"surrogate"', r'"surrogate", description="a\ud800b"'))
    return parse(folder, tmp_path_factory.mktemp("airflow"))


@pytest.mark.parametrize(("name", "reason"), [(name, reason) for name, (_, reason) in FAULTS.items()])
def test_file_that_ends_its_parser_is_an_import_error(results, name, reason):
    assert results[f"{name}.py"]["dags"] == []
    assert reason in results[f"{name}.py"]["errors"][f"{name}.py"]


@pytest.mark.parametrize("name", GOOD)
def test_other_files_are_parsed(results, name):
    assert results[f"{name}.py"] == {"dags": [name], "errors": {}}


def test_upstream_stores_nothing_for_a_file_that_exits(tmp_path):
    """If this fails, upstream is fixed: check which parts of airflow_ha.patches.report_parser_exit are still needed."""
    (tmp_path / "exits.py").write_text(FILE.format(name="exits", statement="os._exit(0)"))
    assert parse(tmp_path, tmp_path, "upstream") == {}


@pytest.fixture(scope="module")
def patch():
    """The module, without its effect on Airflow in this process."""
    from airflow_ha.patches import report_parser_exit

    return report_parser_exit


@pytest.mark.parametrize(
    ("seconds", "errors", "ended_ago", "changed_ago", "is_resting"),
    [
        (30, 1, 60, 600, True),
        (30, 1, 130, 600, False),
        (30, 1, 60, 1, False),
        (30, 0, 60, 600, False),
        (1, 1, 1, 600, False),
    ],
)
def test_slow_failing_file_rests_until_it_changes(patch, tmp_path, seconds, errors, ended_ago, changed_ago, is_resting):
    path = tmp_path / "file.py"
    path.touch()
    os.utime(path, (time.time() - changed_ago,) * 2)
    ended = patch.timezone.utcnow() - timedelta(seconds=ended_ago)
    stat = SimpleNamespace(import_errors=errors, last_finish_time=ended, last_duration=seconds)
    file = dag_file(path)
    assert patch.is_resting(SimpleNamespace(_file_stats={file: stat}), file) is is_resting


def dag_file(path):
    from airflow.dag_processing.manager import DagFileInfo

    return DagFileInfo(path.relative_to(path.parent), "b", path.parent)


@pytest.mark.parametrize(
    ("status", "cpu", "starved"), [("running", 1.0, True), ("running", 10.0, False), ("sleeping", 0.1, False)]
)
def test_only_a_runnable_process_is_starved(patch, monkeypatch, status, cpu, starved):
    process = SimpleNamespace(cpu_times=lambda: SimpleNamespace(user=cpu, system=0.0), status=lambda: status)
    monkeypatch.setattr(patch.psutil, "Process", lambda _: process)
    assert patch.is_starved(1) is starved


def test_ended_process_is_not_starved(patch):
    with subprocess.Popen(["true"]) as process:
        pass
    assert not patch.is_starved(process.pid)
