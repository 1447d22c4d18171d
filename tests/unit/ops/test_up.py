"""`up` and `scale` on a running stack, and an interrupted `up`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from ops import deployment, pipeline, rollout, rotation_state, secrets_store, settings_file
from ops.clients.airflow import Run
from ops.commands import up
from ops.errors import StackError
from ops.observability.derived_settings import derive_settings
from ops.pipeline import verify_pipeline
from ops.project import ROOT
from tests.unit.stack_fakes import container, run

SETTINGS = {"COMPOSE_PROJECT_NAME": "airflow-ha", "COMPOSE_PROFILES": "data"}
CREATED = datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC).timestamp()
PROFILE_ON = {"name": "airflow-ha", "services": {"worker": {}, "flower": {"profiles": ["flower"]}}}
PROFILE_OFF = {"name": "airflow-ha", "services": {"worker": {}}}


@pytest.fixture
def stack(project, docker, monkeypatch):
    """A healthy worker; Flower's profile is off. Returns a function that sets the containers."""
    monkeypatch.setattr(rollout, "POLL_SECONDS", 0.0)
    docker.answer("--profile=* config", out=json.dumps(PROFILE_ON))
    docker.answer("config --format json", out=json.dumps(PROFILE_OFF))

    docker.answer_containers(container("worker", 1, health="healthy"))
    return docker.answer_containers


def call_of(docker, subcommand: str) -> list[str]:
    (call,) = [call for call in docker.calls() if subcommand in call and "--dry-run" not in call]
    return call


def test_service_whose_profile_is_off_is_stopped(project, docker, stack, monkeypatch):
    stack(container("worker", 1, health="healthy"), container("flower", 1, health="healthy"))
    monkeypatch.setattr(deployment, "roll_out", lambda *_, **__: None)
    up.start(project, SETTINGS)
    assert call_of(docker, "rm")[-3:] == ["--stop", "--force", "flower"]


@pytest.mark.usefixtures("stack")
def test_up_on_a_healthy_stack_recreates_nothing(project, docker):
    up.start(project, SETTINGS)
    assert call_of(docker, "up")[-3:] == ["up", "--detach", "--remove-orphans"]
    assert not any("rm" in call for call in docker.calls())


@pytest.mark.usefixtures("stack")
def test_containers_older_than_their_secrets_are_recreated(project, docker):
    with_a_secret(docker, "worker", reader="airflow")
    mark_written(project, "airflow")
    up.start(project, SETTINGS)
    assert call_of(docker, "up")[-1] == "--force-recreate"


@pytest.mark.usefixtures("stack")
def test_containers_older_than_secrets_of_others_are_kept(project, docker):
    with_a_secret(docker, "worker", reader="airflow")
    mark_written(project, "alertmanager")
    up.start(project, SETTINGS)
    assert call_of(docker, "up")[-1] == "--remove-orphans"


def test_trusted_token_keys_are_replaced_one_container_at_a_time(project, docker, stack, monkeypatch):
    replaced: list[Any] = []
    monkeypatch.setattr(deployment.rolling, "replace_outdated", lambda *args: replaced.append(args[2]))
    with_a_secret(docker, "worker", reader="tokens")
    mark_written(project, "tokens")
    stack(container("worker", 1, health="healthy"))
    up.start(project, SETTINGS)
    assert replaced == [()]
    assert call_of(docker, "up")[-1] == "--remove-orphans"


def test_up_continues_a_rotation_one_container_at_a_time(project, docker, stack, monkeypatch):
    replaced: list[Any] = []
    monkeypatch.setattr(deployment.rolling, "replace_outdated", lambda *args: replaced.append(args[2]))
    with_a_secret(docker, "worker", reader="airflow")
    mark_written(project, "airflow")
    rotation_state.keep_values(project, "fernet_key", "a", "b")
    rotation_state.write(project, rotation_state.Rotation({"fernet_key": "admit"}))
    stack(container("worker", 1, health="healthy"))
    up.start(project, SETTINGS)
    assert replaced == [()]
    assert call_of(docker, "up")[-1] == "--remove-orphans"


def test_up_finishes_a_rotation_only_when_it_is_due(project, monkeypatch):
    finished: list[Any] = []
    monkeypatch.setattr(up.steps, "finish", lambda *args: finished.append(args[0]))
    rotation_state.keep_values(project, "jwt_users_key", "a", "b")
    for until, expected in ((time.time() + 60, []), (time.time() - 60, [project])):
        rotation_state.write(project, rotation_state.Rotation({"jwt_users_key": "wait"}, {"jwt_users_key": until}))
        up.finish_rotation(project, SETTINGS)
        assert finished == expected


def test_new_webhook_replaces_only_the_alertmanagers(project, docker, stack, monkeypatch):
    replaced: list[set[str]] = []
    monkeypatch.setattr(deployment.rolling, "replace_outdated", lambda *args: replaced.append(set(args[2])))
    names = ["alertmanager-1", "alertmanager-2"]
    stack(*(container(name, 1, health="healthy") for name in names))
    with_a_secret(docker, *names, reader="alertmanager")
    mark_written(project, "alertmanager")
    up.start(project, SETTINGS)
    assert replaced[0] == set(names)
    assert call_of(docker, "up")[-1] == "--remove-orphans"


def with_a_secret(docker, *services: str, reader: str) -> None:
    """Give each service one secret of this reader."""
    model = {
        "name": "airflow-ha",
        "services": {name: {"secrets": [{"source": "s"}]} for name in services},
        "secrets": {"s": {"file": f"/state/secrets/mounted/{reader}/s"}},
    }
    docker.answer("config --format json", out=json.dumps(model))


def mark_written(project, reader: str) -> None:
    """Mark the files of this reader as just written."""
    folder = project.secrets / "mounted" / reader
    folder.mkdir(parents=True)
    secrets_store.note_written(folder, {"s": secrets_store.Written("", time.time())})


class FakeAirflow:
    """An Airflow with at most one successful pipeline run; records triggered runs."""

    def __init__(self, newest: Run | None, ends: str = "success", *, paused: bool = False) -> None:
        self.newest = newest
        self.ends = ends
        self.paused = paused
        self.triggered: list[str] = []

    def newest_success(self, dag_id: str) -> Run | None:
        return self.newest

    def has_dag(self, dag_id: str) -> bool:
        return True

    def is_paused(self, dag_id: str) -> bool:
        return self.paused

    def trigger(self, dag_id: str) -> Run:
        self.triggered.append(dag_id)
        return Run(dag_id, "new", "queued", time.time(), None)

    def wait_for(self, run: Run, report, *, timeout: float) -> Run:
        return Run(run.dag_id, run.run_id, self.ends, run.started, 1.0)

    def task_states(self, run: Run) -> list[tuple[str, str]]:
        return [("download_data", "success"), ("validate_data", "failed")]

    def result(self, run: Run, task_id: str) -> None:
        return None

    def run_url(self, run: Run) -> str:
        return f"http://airflow/{run.run_id}"


@pytest.fixture
def healthy_stack(stack):
    """One container of every service on the pipeline's path, and a `migrate` that ran later."""
    path = ("gateway", "api-server", "execution-api", "scheduler", "dag-processor", "triggerer", "worker")
    stack(*(container(service, 1, health="healthy") for service in path), container("migrate", 9, state="exited"))


@pytest.mark.usefixtures("healthy_stack")
@pytest.mark.parametrize(
    ("newest", "triggered"),
    [
        (None, ["ml_pipeline_dag"]),
        (Run("ml_pipeline_dag", "before", "success", CREATED - 1, 1.0), ["ml_pipeline_dag"]),
        (Run("ml_pipeline_dag", "since", "success", CREATED + 1, 1.0), []),
    ],
    ids=["never ran", "ran on earlier containers", "ran on these"],
)
def test_pipeline_run_newer_than_the_containers_is_enough(project, monkeypatch, newest, triggered):
    airflow = FakeAirflow(newest)
    monkeypatch.setattr(pipeline, "connect", lambda *_: airflow)
    verify_pipeline(project, settings_file.read(project))
    assert airflow.triggered == triggered


@pytest.mark.usefixtures("healthy_stack")
def test_a_paused_pipeline_is_not_run(project, monkeypatch):
    airflow = FakeAirflow(None, paused=True)
    monkeypatch.setattr(pipeline, "connect", lambda *_: airflow)
    verify_pipeline(project, settings_file.read(project))
    assert airflow.triggered == []


@pytest.mark.usefixtures("healthy_stack")
def test_failed_pipeline_is_an_error_with_its_task_and_url(project, monkeypatch):
    monkeypatch.setattr(pipeline, "connect", lambda *_: FakeAirflow(None, ends="failed"))
    with pytest.raises(StackError, match=r"ml_pipeline_dag: .* validate_data") as error:
        verify_pipeline(project, settings_file.read(project))
    assert error.value.where == "http://airflow/new"
    assert error.value.code == 1


def test_sigterm_ends_up_with_130_and_no_traceback(project, docker):
    docker.answer("version", hangs=True)
    child = subprocess.Popen(
        [sys.executable, "-m", "ops", "up"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not docker.calls() and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGTERM)
    _, stderr = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "interrupted" in stderr
    assert "./ops/stack up" in stderr
    assert "Traceback" not in stderr


@pytest.mark.usefixtures("stack")
def test_scale_keeps_the_count_and_starts_only_that_service(project, docker):
    docker.answer(
        "config --format json",
        out=json.dumps({"name": "airflow-ha", "services": {"worker": {"deploy": {"replicas": 1}}}}),
    )
    result = run("scale", "worker=1")
    assert result.returncode == 0, result.stderr
    assert settings_file.read(project)["WORKER_REPLICAS"] == "1"
    creates, starts = [call for call in docker.calls() if "up" in call]
    assert creates[-3:] == ["--no-start", "--no-recreate", "worker"]
    assert starts[-4:] == ["--detach", "--no-deps", "--no-recreate", "worker"]


def test_trigger_without_a_stack_is_refused(project, docker):
    result = run("trigger", "canary_dag")
    assert result.returncode == 2
    assert "./ops/stack up" in result.stderr


@pytest.mark.usefixtures("stack")
def test_down_without_its_settings_names_remaining_services(project):
    result = run("down")
    assert result.returncode == 2
    assert "worker" in result.stderr


def test_status_of_a_stopped_stack_exits_with_1(project, docker):
    project.env_file.write_text("AIRFLOW_IMAGE=a\n")
    docker.answer("config --format json", out=json.dumps(PROFILE_OFF))
    result = run("status")
    assert result.returncode == 1
    assert "data and settings are kept" in result.stdout


@pytest.mark.parametrize(
    ("profiles", "secrets", "expected"),
    [
        ("data,observability", set(), "data,observability,slack-stub"),
        ("data,observability,slack-stub", {"slack_webhook_url"}, "data,observability"),
        ("data,observability", {"slack_webhook_url_data"}, "data,observability,slack-stub"),
        ("data,slack-stub", set(), "data"),
    ],
)
def test_slack_stub_runs_until_a_webhook_is_set(project, profiles, secrets, expected):
    settings = settings_file.read(project) | {"COMPOSE_PROFILES": profiles}
    derive_settings(settings, set(), secrets)
    assert settings["COMPOSE_PROFILES"] == expected
    assert settings["ALERTMANAGERS"] == (
        "http://gateway:8081/alertmanager-1,http://gateway:8081/alertmanager-2" if "observability" in profiles else ""
    )


@pytest.mark.usefixtures("stack")
def test_alerts_expect_the_smaller_count_during_a_rollout(project, docker, monkeypatch):
    from ops import scaling
    from ops.commands import scale
    from ops.observability import generated_config

    steps: list[str] = []
    monkeypatch.setattr(generated_config, "write", lambda _, settings: steps.append(settings["WORKER_REPLICAS"]))
    monkeypatch.setattr(scaling, "roll_out", lambda *_: steps.append("rolled out"))
    for count in ("4", "3"):
        scale.scale([f"worker={count}"])
    assert steps == ["2", "rolled out", "4", "3", "rolled out", "3"]


@pytest.mark.parametrize(("health", "is_rolling"), [("healthy", True), ("unhealthy", False), (None, True)])
def test_up_replaces_one_at_a_time_only_where_all_are_healthy(project, stack, monkeypatch, health, is_rolling):
    """An unhealthy container may wait for another one that this `up` repairs."""
    replaced: list[str] = []
    stack(container("worker", 1, health="healthy"), container("worker", 2, health=health))
    monkeypatch.setattr(deployment, "roll_out", lambda *_, **__: None)
    monkeypatch.setattr(deployment.rolling, "replace_outdated", lambda *_: replaced.append("rolling"))
    up.start(project, SETTINGS)
    assert bool(replaced) is is_rolling
