"""What `up` and `scale` do to a stack that is there, and how an interrupted `up` ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest

from ops import pipeline, rollout, settings_file
from ops.clients.airflow import Run
from ops.commands import up
from ops.errors import StackError
from ops.observability.derived_settings import derive_settings
from ops.pipeline import verify_pipeline
from ops.project import ROOT
from tests.unit.ops.test_commands import run
from tests.unit.ops.test_status import container

SETTINGS = {"COMPOSE_PROJECT_NAME": "airflow-ha", "COMPOSE_PROFILES": "data"}
CREATED = datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC).timestamp()
PROFILE_ON = {"name": "airflow-ha", "services": {"worker": {}, "flower": {"profiles": ["flower"]}}}
PROFILE_OFF = {"name": "airflow-ha", "services": {"worker": {}}}


@pytest.fixture
def stack(project, docker, monkeypatch):
    """A worker, healthy; and Flower beside it, whose profile is off."""
    monkeypatch.setattr(rollout, "POLL_SECONDS", 0.0)
    docker.answer("--profile=* config", out=json.dumps(PROFILE_ON))
    docker.answer("config --format json", out=json.dumps(PROFILE_OFF))

    def with_containers(*containers: dict) -> None:
        docker.answer("ps --all", out="\n".join(one["Id"] for one in containers))
        docker.answer("inspect", out=json.dumps(list(containers)))

    with_containers(container("worker", 1, health="healthy"))
    return with_containers


def call_of(docker, subcommand: str) -> list[str]:
    (call,) = [call for call in docker.calls() if subcommand in call]
    return call


def test_a_service_whose_profile_was_switched_off_is_ended(project, docker, stack, monkeypatch):
    stack(container("worker", 1, health="healthy"), container("flower", 1, health="healthy"))
    monkeypatch.setattr(up, "roll_out", lambda *_, **__: None)
    up.start(project, SETTINGS)
    assert call_of(docker, "rm")[-3:] == ["--stop", "--force", "flower"]


@pytest.mark.usefixtures("stack")
def test_a_stack_that_is_as_it_should_be_is_not_made_anew(project, docker):
    up.start(project, SETTINGS)
    assert call_of(docker, "up")[-3:] == ["up", "--detach", "--remove-orphans"]
    assert not any("rm" in call for call in docker.calls())


@pytest.mark.usefixtures("stack")
def test_containers_older_than_their_secrets_are_made_anew(project, docker):
    with_a_secret(docker, "worker", reader="airflow")
    written(project, "airflow")
    up.start(project, SETTINGS)
    assert call_of(docker, "up")[-1] == "--force-recreate"


@pytest.mark.usefixtures("stack")
def test_containers_older_than_the_secrets_of_others_are_left_alone(project, docker):
    with_a_secret(docker, "worker", reader="airflow")
    written(project, "alertmanager")
    up.start(project, SETTINGS)
    assert call_of(docker, "up")[-1] == "--remove-orphans"


def test_a_new_webhook_makes_only_the_alertmanagers_anew_one_after_the_other(project, docker, stack):
    names = ["alertmanager-1", "alertmanager-2"]
    stack(*(container(name, 1, health="healthy") for name in names))
    with_a_secret(docker, *names, reader="alertmanager")
    written(project, "alertmanager")
    up.start(project, SETTINGS)
    ups = [call for call in docker.calls() if "up" in call]
    assert [call[-1] for call in ups] == [*names, "--remove-orphans"]
    assert all({"--no-deps", "--force-recreate", "--wait"} <= set(call) for call in ups[:2])


def with_a_secret(docker, *services: str, reader: str) -> None:
    """Each of the services reads one secret of this reader."""
    model = {
        "name": "airflow-ha",
        "services": {name: {"secrets": [{"source": "s"}]} for name in services},
        "secrets": {"s": {"file": f"/state/secrets/mounted/{reader}/s"}},
    }
    docker.answer("config --format json", out=json.dumps(model))


def written(project, reader: str) -> None:
    """The files of this reader were written just now."""
    folder = project.secrets / "mounted" / reader
    folder.mkdir(parents=True)
    (folder / ".digest").touch()


class FakeAirflow:
    """Airflow with one run of the pipeline that succeeded, when asked for; records what is triggered."""

    def __init__(self, newest: Run | None, ends: str = "success") -> None:
        self.newest = newest
        self.ends = ends
        self.triggered: list[str] = []

    def newest_success(self, dag_id: str) -> Run | None:
        return self.newest

    def has_dag(self, dag_id: str) -> bool:
        return True

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
def whole_stack(stack):
    """One container of every service that a run goes through; `migrate` ran anew since."""
    path = ("gateway", "api-server", "execution-api", "scheduler", "dag-processor", "triggerer", "worker")
    stack(*(container(service, 1, health="healthy") for service in path), container("migrate", 9, state="exited"))


@pytest.mark.usefixtures("whole_stack")
@pytest.mark.parametrize(
    ("newest", "triggered"),
    [
        (None, ["ml_pipeline_dag"]),
        (Run("ml_pipeline_dag", "before", "success", CREATED - 1, 1.0), ["ml_pipeline_dag"]),
        (Run("ml_pipeline_dag", "since", "success", CREATED + 1, 1.0), []),
    ],
    ids=["never ran", "ran on earlier containers", "ran on these"],
)
def test_a_run_on_the_containers_of_now_is_proof_enough(project, monkeypatch, newest, triggered):
    airflow = FakeAirflow(newest)
    monkeypatch.setattr(pipeline, "connect", lambda *_: airflow)
    verify_pipeline(project, settings_file.read(project))
    assert airflow.triggered == triggered


@pytest.mark.usefixtures("whole_stack")
def test_a_pipeline_that_fails_is_told_with_the_task_and_the_page(project, monkeypatch):
    monkeypatch.setattr(pipeline, "connect", lambda *_: FakeAirflow(None, ends="failed"))
    with pytest.raises(StackError, match="the run of ml_pipeline_dag failed, in validate_data") as error:
        verify_pipeline(project, settings_file.read(project))
    assert error.value.where == "http://airflow/new"
    assert error.value.code == 1


def test_an_up_that_is_ended_from_outside_says_that_the_next_one_finishes_it(project, docker):
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
    deadline = time.monotonic() + 10
    while not docker.calls() and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGTERM)
    _, said = child.communicate(timeout=10)
    assert child.returncode == 130
    assert "interrupted" in said
    assert "./ops/stack up" in said
    assert "Traceback" not in said


@pytest.mark.usefixtures("stack")
def test_scale_keeps_the_number_and_touches_only_what_it_was_asked_for(project, docker):
    docker.answer(
        "config --format json",
        out=json.dumps({"name": "airflow-ha", "services": {"worker": {"deploy": {"replicas": 1}}}}),
    )
    result = run("scale", "worker=1")
    assert result.returncode == 0, result.stderr
    assert settings_file.read(project)["WORKER_REPLICAS"] == "1"
    assert call_of(docker, "up")[-4:] == ["--detach", "--no-deps", "--no-recreate", "worker"]


def test_trigger_without_a_stack_is_refused_at_once(project, docker):
    result = run("trigger", "canary_dag")
    assert result.returncode == 2
    assert "the stack does not run" in result.stderr
    assert "./ops/stack up starts it" in result.stderr


@pytest.mark.usefixtures("stack")
def test_down_without_its_settings_says_what_is_left_and_what_to_do(project):
    result = run("down")
    assert result.returncode == 2
    assert "is gone, but these are still there: worker" in result.stderr


def test_status_of_a_stack_that_is_down_says_that_its_data_is_kept(project, docker):
    project.env_file.write_text("AIRFLOW_IMAGE=a\n")
    docker.answer("config --format json", out=json.dumps(PROFILE_OFF))
    result = run("status")
    assert result.returncode == 1
    assert "The stack is down" in result.stdout


@pytest.mark.parametrize(
    ("profiles", "secrets", "wanted"),
    [
        ("data,observability", set(), "data,observability,slack-stub"),
        ("data,observability,slack-stub", {"slack_webhook_url"}, "data,observability"),
        ("data,observability", {"slack_webhook_url_data"}, "data,observability,slack-stub"),
        ("data,slack-stub", set(), "data"),
    ],
)
def test_the_stacks_own_slack_is_there_until_there_is_a_real_one(project, profiles, secrets, wanted):
    settings = settings_file.read(project) | {"COMPOSE_PROFILES": profiles}
    derive_settings(settings, set(), secrets)
    assert settings["COMPOSE_PROFILES"] == wanted
    assert settings["ALERTMANAGERS"] == (
        "http://alertmanager-1:9093,http://alertmanager-2:9093" if "observability" in profiles else ""
    )


@pytest.mark.usefixtures("stack")
def test_while_instances_come_or_go_no_more_are_wanted_than_there_are_to_be(project, docker, monkeypatch):
    from ops import scaling
    from ops.commands import scale
    from ops.observability import generated_config

    seen: list[str] = []
    monkeypatch.setattr(generated_config, "write", lambda _, settings: seen.append(settings["WORKER_REPLICAS"]))
    monkeypatch.setattr(scaling, "roll_out", lambda *_: seen.append("rolled out"))
    for count in ("4", "3"):
        scale.scale([f"worker={count}"])
    assert seen == ["2", "rolled out", "4", "3", "rolled out", "3"]
