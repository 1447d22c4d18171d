"""A DAG file that ends its parser, or never ends, is an import error with its reason; the others are read as before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import timedelta
from types import SimpleNamespace

import pytest

from ops.project import ROOT

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
    """What is written of each file, by dag_processor.py."""
    done = subprocess.run(
        [sys.executable, ROOT / "tests/unit/patches/dag_processor.py", folder, *arguments],
        env={
            **os.environ,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "PYTHONPATH": str(ROOT / "src"),
        },
        capture_output=True,
        text=True,
        timeout=200,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(lines[-1].removeprefix("RESULT "))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dags")
    statements = {**GOOD, **{name: statement for name, (statement, _) in FAULTS.items()}}
    for name, statement in statements.items():
        text = FILE.format(name=name, statement=statement)
        (folder / f"{name}.py").write_text(text.replace('"surrogate"', r'"surrogate", description="a\ud800b"'))
    return parse(folder, tmp_path_factory.mktemp("airflow"))


@pytest.mark.parametrize(("name", "reason"), [(name, reason) for name, (_, reason) in FAULTS.items()])
def test_a_file_that_ends_its_parser_is_an_import_error(written, name, reason):
    assert written[f"{name}.py"]["dags"] == []
    assert reason in written[f"{name}.py"]["errors"][f"{name}.py"]


@pytest.mark.parametrize("name", GOOD)
def test_other_files_are_read_as_before(written, name):
    assert written[f"{name}.py"] == {"dags": [name], "errors": {}}


def test_upstream_writes_nothing_of_a_file_that_exits(tmp_path):
    """When this fails, Airflow has fixed it: look what of airflow_ha.patches.report_parser_exit is left."""
    (tmp_path / "exits.py").write_text(FILE.format(name="exits", statement="os._exit(0)"))
    assert parse(tmp_path, tmp_path, "upstream") == {}


@pytest.fixture(scope="module")
def patch():
    """The module, without its effect on the Airflow of the other tests."""
    from airflow_ha.patches import report_parser_exit

    return report_parser_exit


@pytest.mark.parametrize(
    ("took", "errors", "ended_ago", "changed_ago", "rests"),
    [
        (30, 1, 60, 600, True),
        (30, 1, 130, 600, False),
        (30, 1, 60, 1, False),
        (30, 0, 60, 600, False),
        (1, 1, 1, 600, False),
    ],
)
def test_a_slow_failing_file_rests_until_changed(patch, tmp_path, took, errors, ended_ago, changed_ago, rests):
    path = tmp_path / "file.py"
    path.touch()
    os.utime(path, (time.time() - changed_ago,) * 2)
    ended = patch.timezone.utcnow() - timedelta(seconds=ended_ago)
    stat = SimpleNamespace(import_errors=errors, last_finish_time=ended, last_duration=took)
    file = dag_file(path)
    assert patch.rests(SimpleNamespace(_file_stats={file: stat}), file) is rests


def dag_file(path):
    from airflow.dag_processing.manager import DagFileInfo

    return DagFileInfo(path.relative_to(path.parent), "b", path.parent)


@pytest.mark.parametrize(
    ("status", "cpu", "starved"), [("running", 1.0, True), ("running", 10.0, False), ("sleeping", 0.1, False)]
)
def test_only_a_process_that_wants_a_processor_is_starved(patch, monkeypatch, status, cpu, starved):
    process = SimpleNamespace(cpu_times=lambda: SimpleNamespace(user=cpu, system=0.0), status=lambda: status)
    monkeypatch.setattr(patch.psutil, "Process", lambda _: process)
    assert patch.is_starved(1) is starved


def test_a_process_that_has_ended_is_not_starved(patch):
    with subprocess.Popen(["true"]) as process:
        pass
    assert not patch.is_starved(process.pid)
