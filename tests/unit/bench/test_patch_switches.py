"""Each speed patch is off in turn, only what it changes is restarted, and then the settings are as before."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from airflow_ha.patches import registry
from ops.bench import benches, patch_switches, setting_comparison
from ops.bench.comparisons import COMPARISONS
from ops.bench.patch_switches import switched
from ops.bench.targets import Side
from ops.errors import StackError

SERVICES = ("scheduler", "worker", "worker-gpu", "execution-api", "migrate", "postgres")
SIDE = Side("here", "x", {}, None, lambda slots: None)
ENV = "# mine\nPATCHES_DISABLED=quick_results\n"


def row(name: str, kind: registry.Kind, *components: str, requires: tuple[str, ...] = ()) -> registry.Patch:
    return registry.Patch(
        name=name,
        kind=kind,
        components=frozenset(components),
        benefit="b",
        cost="c",
        written_for={},
        replaces={},
        requires=requires,
    )


ROWS = (
    row("patient", "safety", "scheduler", "worker", "migrate"),
    row("quick_results", "speed", "worker"),
    row("lean_calls", "speed", "execution-api"),
    row("leaner_calls", "speed", "scheduler", requires=("lean_calls",)),
)


@pytest.fixture
def stack(monkeypatch, tmp_path):
    """A stack with these patches, of which the operator has switched one off; what was restarted with which values."""
    monkeypatch.setattr(registry, "PATCHES", ROWS)
    with_dependents = registry.with_dependents
    names = [patch.name for patch in ROWS]
    monkeypatch.setattr(registry, "with_dependents", lambda reasons: with_dependents(reasons, names))
    project = SimpleNamespace(env_file=tmp_path / ".env", shown=str)
    project.env_file.write_text(ENV)
    seen = SimpleNamespace(project=project, log=[], turns=0)

    def settings_of(_project=None):
        lines = [line.partition("=") for line in project.env_file.read_text().splitlines() if "=" in line]
        return {key: value for key, _, value in lines}

    def roll_out(_project, _report, *arguments):
        seen.log.append((arguments, tuple(settings_of().get(key, "") for key in ("PATCHES", "PATCHES_DISABLED"))))

    @contextmanager
    def turns(sides, report):
        seen.turns += 1
        yield lambda side: None

    monkeypatch.setattr(setting_comparison.settings_file, "read", settings_of)
    monkeypatch.setattr(setting_comparison.compose, "config", lambda project: {"services": dict.fromkeys(SERVICES)})
    monkeypatch.setattr(setting_comparison, "roll_out", roll_out)
    monkeypatch.setattr(setting_comparison, "turns", turns)
    return seen


def measured(*_) -> dict[str, float]:
    return {benches.LATENCY: 0.5}


def test_speed_patches_are_off_one_by_one_after_all_are_on():
    assert patch_switches.each_off(ROWS) == {
        "all on": switched("all"),
        "quick_results": switched("all", "quick_results"),
        "lean_calls": switched("all", "lean_calls"),
        "leaner_calls": switched("all", "leaner_calls"),
    }


def test_only_components_with_a_changed_patch_are_restarted(stack):
    taken: dict = {}
    ways = {"all on": switched("all"), "lean_calls": switched("all", "lean_calls")}
    setting_comparison.compare(ways, patch_switches.affected, measured, stack.project, SIDE, 2, taken, print)
    assert stack.log == [
        (("--no-deps", "worker", "worker-gpu"), ("all", "")),
        (("--no-deps", "execution-api", "scheduler"), ("all", "lean_calls")),  # with what requires it
        # The second round goes back, and begins where the first has ended.
        (("--no-deps", "execution-api", "scheduler"), ("all", "")),
        ((), ("", "quick_results")),
    ]
    assert taken == {"all on": [measured()] * 2, "lean_calls": [measured()] * 2}
    assert stack.turns == 4
    assert stack.project.env_file.read_text() == ENV


def test_a_mode_restarts_all_that_it_changes_but_the_migration(stack):
    assert patch_switches.affected(switched("all"), switched("none"), SERVICES) == [
        "execution-api",
        "scheduler",
        "worker",
        "worker-gpu",
    ]
    assert patch_switches.affected(switched(""), switched("safety"), ("worker", "migrate", "postgres")) == ["worker"]
    assert patch_switches.affected(switched(""), switched("all"), SERVICES) == []


def test_a_failure_keeps_what_was_measured_and_restores_the_settings(stack):
    def fail(side, report):
        if stack.turns == 2:
            raise StackError("the run has failed")
        return measured()

    taken: dict = {}
    with pytest.raises(StackError, match="the run has failed"):
        setting_comparison.compare(
            patch_switches.each_off(ROWS), patch_switches.affected, fail, stack.project, SIDE, 5, taken, print
        )
    assert list(taken) == ["all on"]
    assert stack.project.env_file.read_text() == ENV
    assert stack.log[-1] == ((), ("", "quick_results"))


def test_a_patch_is_measured_by_latency_rate_and_cost(monkeypatch):
    monkeypatch.setattr(
        patch_switches, "counted", lambda side, report, tasks: (30.0, {"worker": 30.0, "scheduler": 30.0})
    )
    monkeypatch.setattr(patch_switches, "latency", lambda side, report: measured())
    assert patch_switches.measure(SIDE, print) == {
        benches.LATENCY: 0.5,
        "tasks/s": 10.0,
        benches.COST: 0.2,
        f"{benches.COST}, worker": 0.1,
        f"{benches.COST}, execution-api": 0.0,
        f"{benches.COST}, scheduler": 0.1,
    }


def test_the_benches_cover_every_speed_patch_and_every_mode():
    by_name = {one.name: one.compare.args[0] for one in COMPARISONS if one.name in ("patches", "patch-modes")}
    speed = [patch.name for patch in registry.PATCHES if patch.kind == "speed"]
    assert list(by_name["patches"]) == ["all on", *speed]
    assert list(by_name["patch-modes"]) == ["all", "safety", "none"]


def test_only_schedulers_are_restarted_for_a_setting_of_theirs():
    assert setting_comparison.schedulers(setting_comparison.REST["3"], setting_comparison.REST["0"], SERVICES) == [
        "scheduler"
    ]
    assert setting_comparison.schedulers(setting_comparison.REST["0"], setting_comparison.REST["0"], SERVICES) == []
