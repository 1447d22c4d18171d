"""What is said on the command line to any of the suites."""

from __future__ import annotations

import pytest


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
