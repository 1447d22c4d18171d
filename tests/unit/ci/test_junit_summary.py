"""A run's page counts its tests, and shows the output of each that failed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ops.ci import junit_summary
from ops.project import ROOT

TESTS = """
import pytest

def test_good():
    pass

def test_bad():
    assert "<seen>" == "expected"

@pytest.mark.skip
def test_left_out():
    pass

@pytest.fixture
def broken():
    raise RuntimeError("no stack")

def test_without_its_fixture(broken):
    pass
"""


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """A folder with the file that pytest wrote about the tests above."""
    folder = tmp_path_factory.mktemp("reports")
    (folder / "test_sample.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_sample.py", "--junitxml=unit.xml"]
    assert subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 1
    return folder


def test_the_counts_are_pytests(reports):
    assert "| unit | 1 | 2 | 1 |" in junit_summary.markdown([junit_summary.read(reports / "unit.xml")])


def test_each_failure_shows_the_expected_and_the_actual_value(reports):
    summary = junit_summary.markdown([junit_summary.read(reports / "unit.xml")])
    assert "<summary>test_sample::test_bad</summary>" in summary
    assert "assert '<seen>' == 'expected'" in summary
    assert "RuntimeError: no stack" in summary


def test_a_tests_output_cannot_end_its_code_block(reports):
    summary = junit_summary.markdown([junit_summary.read(reports / "unit.xml")])
    quoted = summary.split("</summary>")[1].split("</details>")[0].strip("\n").splitlines()
    assert all(line.startswith("    ") or not line for line in quoted)


def test_1000_failures_fit_on_a_page():
    failures = tuple(junit_summary.Failure(f"test_{n}", "line\n" * 500) for n in range(1000))
    summary = junit_summary.markdown([junit_summary.Report("all", 1000, 0, 1.0, failures)])
    assert len(summary.encode()) < 2**20
    assert "950 more" in summary


def test_a_run_without_tests_is_reported_without_packages(tmp_path):
    """With the standard library alone: the installation of the environment may have failed."""
    command = [sys.executable, "-S", "-m", "ops.ci.junit_summary", str(tmp_path / "none")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip()
    assert "| tests |" not in done.stdout
