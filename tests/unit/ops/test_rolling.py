"""A rolling replacement stops one container at a time, and stops at the first that is not healthy."""

from __future__ import annotations

import pytest

from ops import data_tier, failover, rolling, secrets_store, token_keys
from ops.errors import StackError
from ops.secrets_store import Written
from tests.unit.ops.simulated_stack import MODEL, SimulatedStack, simulated

__all__ = ["simulated"]


@pytest.fixture(autouse=True)
def short_timeout(monkeypatch):
    monkeypatch.setattr(rolling, "HEALTHY_SECONDS", 0.0)


def replace_outdated(project, within=()) -> int:
    return rolling.replace_outdated(project, lambda _: None, within)


def test_every_container_gets_the_new_version_in_order(project, simulated: SimulatedStack):
    simulated.version = "new"
    assert replace_outdated(project) == 11
    assert simulated.used() == {"new"}
    started = [change.split()[1] for change in simulated.changes if change.startswith("start")]
    assert list(dict.fromkeys(started)) == [
        "postgres",
        "redis",
        "migrate",
        "gateway",
        "execution-api",
        "scheduler",
        "worker",
        "dag-processor",
    ]
    assert {name: simulated.fewest_running[name] for name in ("execution-api", "scheduler", "worker")} == {
        "execution-api": 1,
        "scheduler": 1,
        "worker": 1,
    }


def test_workers_get_their_whole_time_to_finish_tasks(project, simulated: SimulatedStack):
    simulated.version = "new"
    replace_outdated(project)
    assert [change for change in simulated.changes if change.startswith("stop worker")] == ["stop worker old 600"] * 2


def test_up_to_date_stack_is_not_changed(project, simulated: SimulatedStack):
    assert replace_outdated(project) == 0
    assert simulated.changes == []


def test_only_the_given_services_are_replaced(project, simulated: SimulatedStack):
    simulated.version = "new"
    assert replace_outdated(project, ["postgres"]) == 1
    assert simulated.changes == ["stop postgres old 10", "start postgres new"]


def test_container_older_than_its_secrets_is_replaced(project, simulated: SimulatedStack):
    gateway = {**MODEL["services"]["gateway"], "secrets": [{"source": "url"}]}
    secrets = {"url": {"file": "/state/secrets/mounted/airflow/url"}}
    simulated.model = {**MODEL, "services": {**MODEL["services"], "gateway": gateway}, "secrets": secrets}
    (before,) = simulated.containers["gateway"]
    folder = project.secrets / "mounted/airflow"
    folder.mkdir(parents=True)
    secrets_store.note_written(folder, {"other": Written("", before.created + 1)})
    assert replace_outdated(project) == 0
    secrets_store.note_written(folder, {"url": Written("", before.created + 1)})
    assert replace_outdated(project) == 1
    assert simulated.changes == ["stop gateway old 10", "start gateway old"]
    assert before not in simulated.all()


def test_former_tokens_end_with_every_container_that_verifies_them(project, simulated: SimulatedStack):
    secrets_store.generate(project)
    (project.secrets / token_keys.FORMER).write_text("s" * 64)
    simulated.version = "new"
    replace_outdated(project)
    order = [change for change in simulated.changes if "execution-api" in change or "scheduler" in change]
    assert order[:5] == [
        *["stop scheduler old 10"] * 2,
        *["stop execution-api old 10"] * 2,
        "start execution-api new",
    ], "none that refuses new tokens runs beside one that signs them"
    simulated.changes.clear()
    simulated.version = "newer"
    now = (project.secrets / token_keys.TASKS).stat().st_mtime + 1
    for service in ("execution-api", "scheduler"):
        for instance in simulated.containers[service]:
            simulated.set(instance.id, created=now)
    simulated.fewest_running.clear()
    replace_outdated(project)
    assert simulated.fewest_running["execution-api"] == 1, "the keys are the same, so one container serves meanwhile"


def test_unhealthy_container_stops_the_replacement(project, simulated: SimulatedStack):
    simulated.version = simulated.broken = "new"
    simulated.failing = {"scheduler"}
    with pytest.raises(StackError, match="scheduler is not healthy") as error:
        replace_outdated(project)
    assert "running, unhealthy" in error.value.where
    assert "stop worker old 600" not in simulated.changes
    assert [each.health for each in simulated.containers["scheduler"]] == ["healthy", "unhealthy"]


def test_failed_migration_stops_the_replacement_before_any_component(project, simulated: SimulatedStack):
    simulated.version = simulated.broken = "new"
    simulated.failing = {"migrate"}
    with pytest.raises(StackError, match="migrate"):
        replace_outdated(project)
    assert not any("execution-api" in change for change in simulated.changes)


def test_stopped_dependency_of_an_outdated_service_is_started_first(project, simulated: SimulatedStack):
    simulated.stop(["redis-2"], 0)
    simulated.changes.clear()
    simulated.versions[simulated.containers["scheduler"][0].id] = "other"
    replace_outdated(project)
    assert simulated.changes == ["start redis old", "stop scheduler other 10", "start scheduler old"]


def test_primary_fails_over_before_it_is_replaced_last(project, simulated: SimulatedStack, monkeypatch):
    nodes = {name: {"restart": "always", "deploy": {"replicas": 1}} for name in ("patroni-1", "patroni-2")}
    simulated.model = {"name": "airflow-ha", "services": nodes}
    simulated.containers = {}
    simulated.start_everything()
    primary = ["patroni-1"]

    def switch(*_) -> None:
        simulated.changes.append("switch")
        primary[0] = "patroni-2"

    monkeypatch.setattr(rolling, "SWITCHES", ((("patroni-1", "patroni-2"), switch),))
    monkeypatch.setattr(data_tier, "members", lambda _: [])
    monkeypatch.setattr(data_tier, "primaries", lambda _: set(primary))
    monkeypatch.setattr(data_tier, "is_in_sync", lambda _: True)
    simulated.version = "new"
    replace_outdated(project)
    assert simulated.changes == [
        "stop patroni-2 old 10",
        "start patroni-2 new",
        "switch",
        "stop patroni-1 old 10",
        "start patroni-1 new",
    ]


def test_each_replicated_service_has_its_failover():
    assert {switch for _, switch in rolling.SWITCHES} == {failover.switch_postgres, failover.switch_redis}


def test_own_workers_follow_the_schedulers():
    services = {
        "worker-gpu": {"environment": {"AIRFLOW_HA_COMPONENT": "worker-gpu"}},
        "batch": {"environment": {"AIRFLOW_HA_COMPONENT": "worker-batch"}},
    }
    model = {"services": {**MODEL["services"], **services}}
    names = ["batch", "dag-processor", "scheduler", "worker", "worker-gpu"]
    assert rolling.in_order(model, names) == ["scheduler", "batch", "worker", "worker-gpu", "dag-processor"]


@pytest.mark.parametrize(
    ("period", "seconds"), [("10m0s", 600), ("1h0m5s", 3605), ("30s", 30), ("1m30.5s", 90), (None, 10), ("500ms", 10)]
)
def test_stop_grace_period_of_compose_is_read(period, seconds):
    assert rolling.stop_seconds(period) == seconds
