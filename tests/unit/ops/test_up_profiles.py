"""The profiles of `up`, and the services that start before the images for observability are built."""

from __future__ import annotations

import pytest

from ops import settings_file
from ops.commands import up
from ops.errors import StackError
from ops.images import resolve
from tests.unit.compose.model import compose_model

SETTINGS = {"COMPOSE_PROJECT_NAME": "airflow-ha", "COMPOSE_PROFILES": "data,flower,observability"}


def test_ha_is_the_replicated_data_tier_with_everything_else():
    assert up.chosen_profiles([], ha=True) == ["data-ha", "flower", "observability"]


def test_profiles_are_named_once_each():
    assert up.chosen_profiles(["data,flower", "flower"], ha=False) == ["data", "flower"]


def test_no_option_names_no_profile():
    assert up.chosen_profiles([], ha=False) == []


def test_ha_beside_a_profile_is_refused():
    with pytest.raises(StackError, match="--ha"):
        up.chosen_profiles(["data"], ha=True)


@pytest.mark.parametrize(
    ("names", "stopped"),
    [
        (["data-ha"], ["flower", "observability"]),
        (["data-ha", "flower"], ["observability"]),
        (["data-ha", "flower", "observability"], []),
    ],
)
def test_a_profile_left_out_is_reported(names, stopped, capsys):
    up.report_stopped_profiles(SETTINGS, names)
    line = capsys.readouterr().out
    assert [name for name in ("data", "flower", "observability") if f"--profile {name}" in line] == stopped


def test_the_core_is_all_but_observability():
    services = compose_model()["services"]
    rest = services.keys() - set(up.core_services({"services": services}))
    assert {"prometheus", "otel-collector", "alertmanager-1", "slack-stub", "grafana"} <= rest
    assert not rest & {"scheduler", "worker", "gateway", "postgres", "redis-1", "patroni-1", "flower", "migrate"}


def test_no_core_service_waits_for_observability():
    services = compose_model()["services"]
    core = set(up.core_services({"services": services}))
    waits_for = {name: set(services[name].get("depends_on", {})) - core for name in core}
    assert {name: others for name, others in waits_for.items() if others} == {}


class Plan:
    """A plan of images that records its calls."""

    def __init__(self, taken: list[tuple], missing: list[str]) -> None:
        self.taken = taken
        self.missing = missing

    def core(self) -> dict:
        self.taken.append(("core images",))
        return {}

    def missing_rest(self) -> list[str]:
        return self.missing

    def rest(self) -> dict:
        self.taken.append(("other images",))
        return {}


@pytest.fixture
def steps(project, monkeypatch):
    """The steps of `start_all` in their order."""
    taken: list[tuple] = []
    monkeypatch.setattr(up.compose, "config", lambda project: {})
    monkeypatch.setattr(up, "core_services", lambda model: ["worker"])
    monkeypatch.setattr(up, "configure", lambda project, settings, images: taken.append(("configure",)))
    monkeypatch.setattr(up, "start", lambda project, settings, services=None: taken.append(("start", services)))
    monkeypatch.setattr(up, "verify_pipeline", lambda project, settings: taken.append(("verify",)))
    return taken


def plan(monkeypatch, steps: list[tuple], missing: list[str]) -> None:
    monkeypatch.setattr(resolve, "plan_images", lambda root, progress, profiles: Plan(steps, missing))


def test_the_pipeline_runs_before_missing_images_are_built(project, steps, monkeypatch):
    plan(monkeypatch, steps, ["otel-collector"])
    up.start_all(project, settings_file.read(project))
    assert steps == [
        ("core images",),
        ("configure",),
        ("start", ["worker"]),
        ("verify",),
        ("other images",),
        ("configure",),
        ("start", None),
        ("verify",),
    ]


def test_everything_starts_at_once_when_no_image_is_missing(project, steps, monkeypatch):
    plan(monkeypatch, steps, [])
    up.start_all(project, settings_file.read(project))
    assert [step for step, *_ in steps] == ["core images", "other images", "configure", "start", "verify"]


def test_the_chosen_profiles_are_kept_before_images_are_built(project, steps, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(resolve, "plan_images", interrupted)
    with pytest.raises(KeyboardInterrupt):
        up.start_all(project, settings_file.read(project))
    assert "COMPOSE_PROFILES=data,flower,observability" in project.env_file.read_text()


@pytest.mark.parametrize(
    ("address", "profiles", "ports"),
    [
        ("127.0.0.1", "data,observability", None),
        ("::1", "data,observability", None),
        ("0.0.0.0", "data", "8080"),
        ("192.0.2.7", "data,flower", "8080, 5555, 9090, 9093, 9094, 8025, 3000, 16686"),
        ("::", "data,observability", "8080, 5555, 9090, 9093, 9094, 8025, 3000, 16686"),
    ],
)
def test_up_reports_the_ports_that_other_hosts_reach(project, monkeypatch, address, profiles, ports):
    lines: list[str] = []
    monkeypatch.setattr(up, "report", lines.append)
    up.report_open_address(settings_file.read(project) | {"BIND_ADDRESS": address, "COMPOSE_PROFILES": profiles})
    assert len(lines) == (ports is not None)
    assert all(f"the ports {ports}, each with a log-in and without TLS" in line for line in lines)
