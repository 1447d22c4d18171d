"""A stack for each module's profiles, and the drills that are held on it: the code of `./ops/stack drill`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from ops import compose, settings_file
from ops.drills import environments, faults
from ops.drills import report as drill_report
from ops.drills.catalogue import DRILLS, Drill
from ops.drills.runner import Outcome
from ops.errors import StackError
from ops.markdown_table import markdown_table
from ops.project import ROOT
from ops.screen import report
from tests.own_stack import stack_for
from tests.stack import Stack

REPORTS = ROOT / "reports/resilience"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each drill, by its name; those of single nodes are the other module's."""
    if "drill" in metafunc.fixturenames:
        every = metafunc.config.getoption("--drills") == "all"
        chosen = [
            drill
            for drill in DRILLS
            if (every or drill.in_every_run) and drill.of_single_nodes == metafunc.module.OF_SINGLE_NODES
        ]
        metafunc.parametrize("drill", chosen, ids=[drill.name for drill in chosen])


# One after the other: the machine holds one.
@pytest.fixture(scope="module")
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A healthy stack with the module's profiles."""
    with stack_for(request, tmp_path_factory, profiles=request.module.PROFILES) as stack:
        yield stack


@pytest.fixture(scope="session")
def outcomes() -> Iterator[list[Outcome]]:
    """What every drill cost; kept for people and programs at the end, also when one has failed."""
    found: list[Outcome] = []
    yield found
    REPORTS.mkdir(parents=True, exist_ok=True)
    table = markdown_table(drill_report.HEADINGS, drill_report.rows(found))
    (REPORTS / "outcomes.md").write_text(table)
    (REPORTS / "outcomes.json").write_text(json.dumps(drill_report.as_json(found), indent=2) + "\n")


@pytest.fixture(scope="module")
def strike(stack: Stack) -> Iterator[Callable[[Drill], Outcome]]:
    """Holds a drill on the stack."""
    with environments.on_stack(stack.project, settings_file.read(stack.project), report) as strike:
        yield strike


@pytest.fixture
def hold(stack: Stack, strike: Callable[[Drill], Outcome], outcomes: list[Outcome]) -> Callable[[Drill], Outcome]:
    """Holds a drill that this machine and this stack allow."""

    def held(drill: Drill) -> Outcome:
        try:
            faults.check(drill.fault)
        except StackError as error:
            pytest.skip(error.what)
        if missing := set(drill.services) - compose.instances(stack.name).keys():
            pytest.skip(f"this stack has no {', '.join(sorted(missing))}")
        outcomes.append(strike(drill))
        return outcomes[-1]

    return held


@pytest.fixture
def assert_kept(stack: Stack, hold: Callable[[Drill], Outcome]) -> Callable[[Drill], None]:
    """Holds a drill, and says of a broken promise all that is known."""

    def kept(drill: Drill) -> None:
        outcome = hold(drill)
        if outcome.broken:
            said = [
                f"{drill.name}: {outcome.sentence}; not kept:",
                *(f"- {promise}" for promise in outcome.broken),
                json.dumps(drill_report.as_json([outcome])[0], indent=2),
                f"every container's log, when the stack is gone: {stack.reports.relative_to(ROOT)}/",
            ]
            pytest.fail("\n".join(said), pytrace=False)

    return kept
