"""A stack for each module's profiles, and the drills that run on it as `./ops/stack drill` does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from ops import compose, settings_file
from ops.drills import environments, faults
from ops.drills import report as drill_report
from ops.drills.catalogue import DRILLS, Drill
from ops.drills.evaluate import Outcome
from ops.errors import StackError
from ops.markdown_table import markdown_table
from ops.project import ROOT
from ops.screen import report
from tests.own_stack import stack_for
from tests.stack import Stack

REPORTS = ROOT / "reports/resilience"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test of each drill, with its name as id; drills of single nodes belong to the other module."""
    if "drill" in metafunc.fixturenames:
        every = metafunc.config.getoption("--drills") == "all"
        chosen = [
            drill
            for drill in DRILLS
            if (every or drill.in_every_run) and drill.targets_single_nodes == metafunc.module.TARGETS_SINGLE_NODES
        ]
        metafunc.parametrize("drill", chosen, ids=[drill.name for drill in chosen])


# One stack after the other: the machine has room for one.
@pytest.fixture(scope="module")
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Start a healthy stack with the module's profiles."""
    with stack_for(request, tmp_path_factory, profiles=request.module.PROFILES) as stack:
        yield stack


@pytest.fixture(scope="session")
def outcomes() -> Iterator[list[Outcome]]:
    """Collect the outcomes, and write them to reports/resilience at the end, even if a drill failed."""
    outcomes: list[Outcome] = []
    yield outcomes
    REPORTS.mkdir(parents=True, exist_ok=True)
    table = markdown_table(drill_report.HEADINGS, drill_report.rows(outcomes))
    (REPORTS / "outcomes.md").write_text(table)
    (REPORTS / "outcomes.json").write_text(json.dumps(drill_report.as_json(outcomes), indent=2) + "\n")


@pytest.fixture(scope="module")
def run_on_stack(stack: Stack) -> Iterator[Callable[[Drill], Outcome]]:
    """Return the function that runs a drill on the stack."""
    with environments.prepare_stack(stack.project, settings_file.read(stack.project), report) as run:
        yield run


@pytest.fixture
def run_drill(
    stack: Stack, run_on_stack: Callable[[Drill], Outcome], outcomes: list[Outcome]
) -> Callable[[Drill], Outcome]:
    """Return the function that runs a drill, or skips it if this machine or this stack does not support it."""

    def run(drill: Drill) -> Outcome:
        try:
            faults.require_support(drill.fault)
        except StackError as error:
            pytest.skip(error.what)
        if missing := set(drill.required_services) - compose.instances(stack.name).keys():
            pytest.skip(f"this stack has no {', '.join(sorted(missing))}")
        outcomes.append(run_on_stack(drill))
        return outcomes[-1]

    return run


@pytest.fixture
def assert_promises_kept(stack: Stack, run_drill: Callable[[Drill], Outcome]) -> Callable[[Drill], None]:
    """Return the function that runs a drill and fails with the whole outcome if a promise was broken."""

    def assert_kept(drill: Drill) -> None:
        outcome = run_drill(drill)
        if outcome.broken:
            lines = [
                f"{drill.name}: {outcome.sentence}; broken promises:",
                *(f"- {promise}" for promise in outcome.broken),
                json.dumps(drill_report.as_json([outcome])[0], indent=2),
                f"every container's log, after the stack is removed: {stack.reports.relative_to(ROOT)}/",
            ]
            pytest.fail("\n".join(lines), pytrace=False)

    return assert_kept
