"""What is said on the command line to any of the suites, and what any of them says of a failed test."""

from __future__ import annotations

import pytest

from tests.failure_report import pytest_runtest_makereport

__all__ = ["pytest_runtest_makereport"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--stack",
        choices=["own", "running"],
        default="own",
        help="own: bring up a stack for the tests and remove it; running: use the one that is up",
    )
    parser.addoption(
        "--drills",
        choices=["chosen", "all"],
        default="chosen",
        help="of tests/resilience: the few of every run, or every drill of the catalogue",
    )
