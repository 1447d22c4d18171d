"""Command-line options of all suites, and the report of a failed test."""

from __future__ import annotations

import pytest

from airflow_ha.patches.registry import MODES
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
    parser.addoption(
        "--patches", choices=MODES, default="all", help="PATCHES in compose/.env of a stack of the tests' own"
    )
    parser.addoption("--nightly", action="store_true", help="the tests marked nightly, minutes each, and only these")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    nightly = config.getoption("--nightly")
    left_out = [item for item in items if bool(item.get_closest_marker("nightly")) != nightly]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
