"""Each speed patch is switched off in turn, only affected services restart, and the settings are restored."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from airflow_ha.patches import registry
from ops.bench import benches, patch_switches, setting_comparison
from ops.bench.comparisons import COMPARISONS
from ops.bench.patch_switches import patch_settings
from ops.bench.targets import Measurement, Target
from ops.errors import StackError

SERVICES = ("scheduler", "worker", "worker-gpu", "execution-api", "migrate", "postgres")
TARGET = Target("here", "x", {}, None, lambda slots: None)
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
    """Stack whose operator has switched one of these patches off; the services and values of each restart."""
    monkeypatch.setattr(registry, "PATCHES", ROWS)
    with_dependents = registry.with_dependents
    names = [patch.name for patch in ROWS]
    monkeypatch.setattr(registry, "with_dependents", lambda reasons: with_dependents(reasons, names))
    project = SimpleNamespace(env_file=tmp_path / ".env", shown=str)
    project.env_file.write_text(ENV)
    state = SimpleNamespace(project=project, log=[], turns=0)

    def settings_of(_project=None):
        lines = [line.partition("=") for line in project.env_file.read_text().splitlines() if "=" in line]
        return {key: value for key, _, value in lines}

    def roll_out(_project, _report, *arguments):
        state.log.append((arguments, tuple(settings_of().get(key, "") for key in ("PATCHES", "PATCHES_DISABLED"))))

    @contextmanager
    def taking_turns(targets, report):
        state.turns += 1
        yield lambda target: None

    monkeypatch.setattr(setting_comparison.settings_file, "read", settings_of)
    monkeypatch.setattr(setting_comparison.compose, "config", lambda project: {"services": dict.fromkeys(SERVICES)})
    monkeypatch.setattr(setting_comparison, "roll_out", roll_out)
    monkeypatch.setattr(setting_comparison, "taking_turns", taking_turns)
    return state


def measured(*_) -> dict[str, float]:
    return {benches.LATENCY: 0.5}


def test_variants_are_all_on_then_each_speed_patch_off():
    assert patch_switches.each_speed_patch_off(ROWS) == {
        "all on": patch_settings("all"),
        "quick_results": patch_settings("all", "quick_results"),
        "lean_calls": patch_settings("all", "lean_calls"),
        "leaner_calls": patch_settings("all", "leaner_calls"),
    }


def test_only_services_with_a_changed_patch_are_restarted(stack):
    samples: dict = {}
    variants = {"all on": patch_settings("all"), "lean_calls": patch_settings("all", "lean_calls")}
    setting_comparison.compare(
        variants,
        patch_switches.affected_services,
        measured,
        Measurement(stack.project, TARGET, 2, samples, print),
    )
    assert stack.log == [
        (("--no-deps", "worker", "worker-gpu"), ("all", "")),
        (("--no-deps", "execution-api", "scheduler"), ("all", "lean_calls")),  # and the patch that requires it
        # The second round reverses the order, so the current variant needs no restart.
        (("--no-deps", "execution-api", "scheduler"), ("all", "")),
        ((), ("", "quick_results")),
    ]
    assert samples == {"all on": [measured()] * 2, "lean_calls": [measured()] * 2}
    assert stack.turns == 4
    assert stack.project.env_file.read_text() == ENV


def test_mode_restarts_every_changed_service_but_migrate(stack):
    assert patch_switches.affected_services(patch_settings("all"), patch_settings("none"), SERVICES) == [
        "execution-api",
        "scheduler",
        "worker",
        "worker-gpu",
    ]
    assert patch_switches.affected_services(
        patch_settings(""), patch_settings("safety"), ("worker", "migrate", "postgres")
    ) == ["worker"]
    assert patch_switches.affected_services(patch_settings(""), patch_settings("all"), SERVICES) == []


def test_failure_keeps_samples_and_restores_the_settings(stack):
    def fail(target, report):
        if stack.turns == 2:
            raise StackError("the run has failed")
        return measured()

    samples: dict = {}
    with pytest.raises(StackError, match="the run has failed"):
        setting_comparison.compare(
            patch_switches.each_speed_patch_off(ROWS),
            patch_switches.affected_services,
            fail,
            Measurement(stack.project, TARGET, 5, samples, print),
        )
    assert list(samples) == ["all on"]
    assert stack.project.env_file.read_text() == ENV
    assert stack.log[-1] == ((), ("", "quick_results"))


def test_patch_sample_has_latency_rate_and_cost(monkeypatch):
    monkeypatch.setattr(
        patch_switches, "run_fan_out", lambda target, report, tasks: (30.0, {"worker": 30.0, "scheduler": 30.0})
    )
    monkeypatch.setattr(patch_switches, "measure_latency", lambda target, report: measured())
    assert patch_switches.measure(TARGET, print) == {
        benches.LATENCY: 0.5,
        "tasks/s": 10.0,
        benches.COST: 0.2,
        f"{benches.COST}, worker": 0.1,
        f"{benches.COST}, execution-api": 0.0,
        f"{benches.COST}, scheduler": 0.1,
    }


def test_benches_cover_every_speed_patch_and_mode():
    by_name = {bench.name: bench.compare.args[0] for bench in COMPARISONS if bench.name in ("patches", "patch-modes")}
    speed = [patch.name for patch in registry.PATCHES if patch.kind == "speed"]
    assert list(by_name["patches"]) == ["all on", *speed]
    assert list(by_name["patch-modes"]) == ["all", "safety", "none"]


def test_scheduler_setting_restarts_only_schedulers():
    assert setting_comparison.affected_schedulers(
        setting_comparison.REST["3"], setting_comparison.REST["0"], SERVICES
    ) == ["scheduler"]
    assert (
        setting_comparison.affected_schedulers(setting_comparison.REST["0"], setting_comparison.REST["0"], SERVICES)
        == []
    )
