"""A run's page says how many tests passed, and of each that failed what it said."""

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
    """A folder with what pytest itself wrote about the tests above."""
    folder = tmp_path_factory.mktemp("reports")
    (folder / "test_sample.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_sample.py", "--junitxml=unit.xml"]
    assert subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 1
    return folder


def test_the_counts_are_pytests(reports):
    assert "| unit | 1 | 2 | 1 |" in junit_summary.markdown([junit_summary.read(reports / "unit.xml")])


def test_each_failure_is_there_with_what_was_expected_and_seen(reports):
    said = junit_summary.markdown([junit_summary.read(reports / "unit.xml")])
    assert "<summary>test_sample::test_bad</summary>" in said
    assert "assert '<seen>' == 'expected'" in said
    assert "RuntimeError: no stack" in said


def test_what_a_test_printed_cannot_end_its_place_on_the_page(reports):
    said = junit_summary.markdown([junit_summary.read(reports / "unit.xml")])
    quoted = said.split("</summary>")[1].split("</details>")[0].strip("\n").splitlines()
    assert all(line.startswith("    ") or not line for line in quoted)


def test_a_page_has_room_for_a_run_in_which_everything_failed():
    failures = tuple(junit_summary.Failure(f"test_{n}", "line\n" * 500) for n in range(1000))
    said = junit_summary.markdown([junit_summary.Report("all", 1000, 0, 1.0, failures)])
    assert len(said.encode()) < 2**20
    assert "950 more" in said


def test_a_run_that_ended_before_its_tests_says_so_without_the_environment(tmp_path):
    """By the machine's own Python: the environment may be what failed."""
    command = [sys.executable, "-S", "-m", "ops.ci.junit_summary", str(tmp_path / "none")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "No test has reported" in done.stdout
