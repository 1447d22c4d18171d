"""A process that imported a DAG file ends by a fatal signal, with a traceback."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from ops.project import ROOT
from tests.unit.patches.loading import applied

pytestmark = pytest.mark.processes

READ_AND_FAULT = """
import ctypes, os, signal, sys
from airflow.dag_processing.dagbag import DagBag

def run_fault(fault):
    exec(fault)

dag, folder, *cases = sys.argv[1:]
for case in cases:
    print("---", file=sys.stderr, flush=True)
    if not (pid := os.fork()):
        load, fault = case.split("|")
        exec(load)
        DagBag(dag, safe_mode=False, load_op_links=False, bundle_path=folder, bundle_name="b")
        signal.setitimer(signal.ITIMER_PROF, 1.0)  # CPU time, nearly all in the kernel: ends upstream's endless loop
        run_fault(fault)
        os._exit(0)
    print("ended by", -os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
PATCH = "from airflow_ha.patches import dag_import_signals as patch; patch.apply(); patch.end_at_fatal_signals()"
SEGFAULT = "ctypes.string_at(0)"
CASES = {
    "SIGSEGV": (PATCH, SEGFAULT),
    "SIGABRT": (PATCH, "os.abort()"),
    "SIGBUS": (PATCH, "os.kill(os.getpid(), signal.SIGBUS)"),
    "upstream": ("", SEGFAULT),
}


@pytest.fixture(scope="module")
def endings():
    """By case: the signal that ended the process, and its standard error."""
    dag = ROOT / "dags/canary_dag.py"
    cases = ["|".join(case) for case in CASES.values()]
    done = subprocess.run(
        [sys.executable, "-c", READ_AND_FAULT, str(dag), str(dag.parent), *cases],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    numbers = [int(line.split()[-1]) for line in done.stdout.splitlines() if line.startswith("ended by")]
    return dict(zip(CASES, zip(numbers, done.stderr.split("---\n")[1:], strict=True), strict=True))


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS"])
def test_fatal_signal_ends_the_process(endings, name):
    number, errors = endings[name]
    assert number == signal.Signals[name]
    assert "run_fault" in errors


def test_upstream_does_not_end_at_a_segfault(endings):
    """If this fails, https://github.com/apache/airflow/issues/57174 is fixed: delete the patch of the importer."""
    assert endings["upstream"][0] == signal.SIGPROF


def test_importer_can_set_other_handlers():
    from airflow.dag_processing.importers import python_importer

    before = signal.getsignal(signal.SIGALRM)
    with applied("dag_import_signals"):
        python_importer.signal.signal(python_importer.signal.SIGALRM, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGALRM) == signal.SIG_IGN
        python_importer.signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(("code", "name"), [(-9, "SIGKILL"), (-11, "SIGSEGV"), (-40, "signal 40")])
def test_exit_code_is_translated_to_a_signal_name(code, name):
    from airflow_ha.patches.dag_import_signals import name_of

    assert name_of(code).startswith(name)
