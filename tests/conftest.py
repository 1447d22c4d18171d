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
