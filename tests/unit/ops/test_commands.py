"""The commands refuse what makes no sense, with the exit code for bad input, and change nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from typer.testing import CliRunner

from ops.__main__ import app
from ops.commands.trigger import parse_conf
from ops.errors import FAILURE, StackError
from ops.lock import stack_lock
from ops.project import ROOT
from ops.scaling import parse_scale
from ops.services import SCALABLE

# By its module's name: the package's own `test` is the function.
test_command = sys.modules["ops.commands.test"]


def run(*arguments: str, cwd=ROOT) -> subprocess.CompletedProcess[str]:
    """`ops/stack …` without its bootstrap; PATH and STACK_STATE_DIR are the fixtures'."""
    return subprocess.run(
        [sys.executable, "-m", "ops", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def refused(project, docker, tmp_path):
    """Runs a command from another folder; asserts that it is refused and nothing is changed; returns what it said."""

    def check(*arguments: str) -> str:
        before = sorted(path.name for path in project.state.iterdir() if path.name != ".lock")
        result = run(*arguments, cwd=tmp_path)
        assert result.returncode == 2, result.stdout + result.stderr
        assert "Traceback" not in result.stderr
        assert sorted(path.name for path in project.state.iterdir() if path.name != ".lock") == before
        changing = [call for call in docker.calls() if {"up", "down", "run", "build", "pull"} & set(call)]
        assert changing == []
        return result.stderr

    return check


def test_an_unknown_profile_is_refused_with_the_known_ones(refused):
    said = refused("up", "--profile", "grafana")
    assert "unknown profile 'grafana'" in said
    assert "flower" in said


@pytest.mark.parametrize("argument", ["worker=0", "worker=-1", "worker=x", "worker=", "worker=99", "worker=1.5"])
def test_a_number_of_instances_that_makes_no_sense_is_refused_with_the_range(refused, argument):
    assert "1 to 20" in refused("up", "--scale", argument)


def test_scaling_an_unknown_service_is_refused_with_those_that_scale(refused):
    said = refused("up", "--scale", "postgres=2")
    assert all(service in said for service in SCALABLE)


def test_scale_before_up_is_refused_and_says_what_to_run(refused):
    assert "./ops/stack up --scale worker=3" in refused("scale", "worker=3")


def test_logs_before_up_are_refused(refused):
    assert "there is no stack yet" in refused("logs", "worker")


def test_logs_of_an_unknown_service_are_refused_with_the_known_ones(refused, project, docker):
    project.env_file.write_text("AIRFLOW_IMAGE=a\n")
    docker.answer("config", out='{"name": "airflow-ha", "services": {"worker": {}, "scheduler": {}}}')
    said = refused("logs", "wroker")
    assert "the services are: scheduler, worker" in said


def test_a_broken_env_file_is_refused_with_its_line(refused, project):
    project.env_file.write_text("AIRFLOW_PORT 8080\n")
    said = refused("up")
    assert ".env, line 1" in said


def test_removing_data_without_anybody_to_ask_is_refused(refused, project, docker):
    project.env_file.write_text("AIRFLOW_IMAGE=a\n")
    docker.answer("volume ls", out="airflow-ha_postgres-data\n")
    assert "add --yes" in refused("down", "--volumes")


def test_removing_data_says_what_it_removes(project, docker):
    project.env_file.write_text("AIRFLOW_IMAGE=a\n")
    docker.answer("volume ls", out="airflow-ha_postgres-data\nairflow-ha_redis-data\n")
    result = run("down", "--volumes", "--yes")
    assert result.returncode == 0
    assert "removes for ever: airflow-ha_postgres-data, airflow-ha_redis-data" in result.stdout
    assert any("--volumes" in call for call in docker.calls())


def test_down_keeps_the_data(project, docker):
    project.env_file.write_text("AIRFLOW_IMAGE=a\n")
    docker.answer("volume ls", out="airflow-ha_postgres-data\n")
    result = run("down")
    assert "the data stays in airflow-ha_postgres-data" in result.stdout
    assert not any("--volumes" in call for call in docker.calls())


@pytest.mark.parametrize("options", [(), ("--volumes", "--yes")])
def test_down_removes_a_recreated_workers_tmp(project, docker, options):
    """Compose hands it on to the new container by its name, and then keeps it (see without_leftover_volumes)."""
    project.env_file.write_text("AIRFLOW_IMAGE=a\n")
    docker.answer("ps --all", out="worker")
    docker.answer("inspect", out=json.dumps([{"Mounts": [{"Name": "a" * 64}]}]))
    docker.answer("volume ls", out="a" * 64)
    assert run("down", *options).returncode == 0
    assert ["volume", "rm", "a" * 64] in docker.calls()


def test_a_conf_that_is_no_json_is_refused_with_the_place():
    with pytest.raises(StackError, match="not JSON") as refused:
        parse_conf('{"tasks": 3,}')
    assert "line 1, column 1" in refused.value.where


def test_a_conf_that_is_no_object_is_refused():
    with pytest.raises(StackError, match="a JSON list"):
        parse_conf("[1]")


def test_status_without_a_stack_says_so_and_is_not_ready(project, docker):
    result = run("status")
    assert result.returncode == 1
    assert "./ops/stack up starts one" in result.stdout


COMMANDS = ("up", "status", "scale", "restart", "trigger", "logs", "alerts", "silence", "slack", "test", "down")


def test_help_names_every_command():
    text = run("--help").stdout
    assert all(name in text for name in COMMANDS)


def test_a_scale_argument_is_a_service_and_a_number():
    assert parse_scale("worker=4") == ("worker", 4)


def test_two_ups_at_once_the_second_waits_and_says_for_whom(project):
    said: list[str] = []
    entered = threading.Event()

    def second() -> None:
        with stack_lock(project, "up", said.append):
            entered.set()

    with stack_lock(project, "up", print):
        thread = threading.Thread(target=second)
        thread.start()
        deadline = time.monotonic() + 5
        while not said and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not entered.is_set()
    thread.join(5)
    assert entered.is_set()
    assert "waiting for `ops/stack up` (process" in said[0]


def test_the_second_gives_up_in_the_end_and_says_what_to_do(project):
    with stack_lock(project, "up", print), pytest.raises(StackError, match="still at work") as refused:
        with stack_lock(project, "scale", print, wait_seconds=0.3):
            pass
    assert "run this again" in refused.value.hint


def test_an_interrupted_command_says_that_the_next_up_finishes_it(project, docker):
    """Ctrl-C reaches the whole group of processes, as from a terminal; the fake docker hangs in its first question."""
    hanging = docker.folder / "docker"
    hanging.write_text("#!/bin/sh\necho asked >&2\nexec sleep 60\n")
    command = subprocess.Popen(
        [sys.executable, "-m", "ops", "up"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # As in a terminal: what a shell starts in the background ignores it, these tests for instance.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert command.stdout
    while "Pre-flight" not in command.stdout.readline():
        assert command.poll() is None
    os.killpg(command.pid, signal.SIGINT)
    _, said = command.communicate(timeout=20)
    assert command.returncode == 130
    assert "./ops/stack up" in said


@pytest.mark.parametrize(
    ("arguments", "ran", "code"),
    [
        ([], ["checks", "tests/unit", "tests/images", "tests/integration", "tests/resilience"], FAILURE),
        (["checks"], ["checks"], FAILURE),
        (["tests/unit/ml", "-k", "row"], ["tests/unit/ml"], 0),
    ],
)
def test_the_checks_can_be_run_alone_and_one_that_fails_hides_no_other(monkeypatch, arguments, ran, code):
    seen = []
    monkeypatch.setattr(test_command, "checks", lambda: seen.append("checks") or {"bad": ["false"], "good": ["true"]})
    monkeypatch.setattr(test_command, "pytest", lambda arguments: seen.append(arguments[0]) or 0)
    result = CliRunner().invoke(app, ["test", *arguments])
    assert (seen, result.exit_code) == (ran, code)
    assert ("good: well" in result.output) == ("checks" in ran)


def test_benches_are_listed_without_a_stack():
    result = CliRunner().invoke(app, ["bench"])
    assert result.exit_code == 0
    assert all(name in result.output for name in ("latency", "fanout", "schedulers", "dag-files", "telemetry"))


def test_a_bench_that_does_not_exist_is_refused_with_those_that_do(refused):
    said = refused("bench", "speed")
    assert "'speed'" in said
    assert "latency" in said


def test_what_is_kept_is_a_comparison(refused):
    assert "add --stock" in refused("bench", "latency", "--write")
