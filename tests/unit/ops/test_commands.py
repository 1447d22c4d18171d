"""The commands refuse bad input with its exit code, and change nothing."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from typer.testing import CliRunner

from ops.__main__ import app
from ops.commands.trigger import parse_conf
from ops.errors import FAILURE, StackError
from ops.lock import stack_lock
from ops.project import ROOT
from ops.scaling import parse_scale
from ops.services import SCALABLE
from tests.unit.stack_fakes import run

# By its module's name: ops.commands.test as an attribute is the function.
test_command = sys.modules["ops.commands.test"]


@pytest.fixture
def refused(project, docker, tmp_path):
    """A function that runs a command, asserts that it is refused and changes nothing, and returns its error output."""

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


def test_unknown_profile_is_refused_with_the_known_profiles(refused):
    error = refused("up", "--profile", "grafana")
    assert "'grafana'" in error
    assert "flower" in error


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("worker=0", "out of range"),
        ("worker=99", "out of range"),
        *((f"worker={number}", "not a whole number") for number in ("x", "", "1.5", "²")),
        ("worker=-1", "out of range"),
    ],
)
def test_invalid_replica_count_is_refused_with_the_range(refused, argument, reason):
    error = refused("up", "--scale", argument)
    assert reason in error
    assert "1 to 20" in error


def test_scale_of_unknown_service_is_refused_with_the_choices(refused):
    error = refused("up", "--scale", "wrker=2")
    assert "unknown service" in error
    assert all(service in error for service in SCALABLE)


def test_scale_of_a_service_with_one_instance_is_refused(refused):
    assert "the service does not scale" in refused("up", "--scale", "postgres=2")


def test_scale_before_up_is_refused_with_the_command_to_run(refused):
    assert "./ops/stack up --scale worker=3" in refused("scale", "worker=3")


def test_logs_before_up_are_refused(refused):
    assert "./ops/stack up" in refused("logs", "worker")


def test_logs_of_unknown_service_are_refused_with_the_services(refused, project, docker):
    project.env_file.write_text("AIRFLOW_IMAGE=a\n")
    docker.answer("config", out='{"name": "airflow-ha", "services": {"worker": {}, "scheduler": {}}}')
    error = refused("logs", "wroker")
    assert "scheduler, worker" in error


def test_logs_of_two_services_reach_docker_compose(project, docker):
    project.env_file.write_text("AIRFLOW_IMAGE=a\n")
    docker.answer("config", out='{"name": "airflow-ha", "services": {"worker": {}, "scheduler": {}}}')
    assert run("logs", "scheduler", "worker", "--follow", "--tail", "20").returncode == 0
    assert docker.calls()[-1][-5:] == ["logs", "--tail=20", "--follow", "scheduler", "worker"]


def test_logs_of_one_container_reach_docker_compose(project, docker):
    project.env_file.write_text("AIRFLOW_IMAGE=a\n")
    docker.answer("config", out='{"name": "airflow-ha", "services": {"worker": {}, "alertmanager-1": {}}}')
    assert run("logs", "worker-2").returncode == 0
    assert docker.calls()[-1][-2:] == ["--index=2", "worker"]
    assert run("logs", "alertmanager-1").returncode == 0
    assert docker.calls()[-1][-2:] == ["--tail=100", "alertmanager-1"]


def test_logs_of_a_container_with_others_are_refused(refused, project, docker):
    project.env_file.write_text("AIRFLOW_IMAGE=a\n")
    docker.answer("config", out='{"name": "airflow-ha", "services": {"worker": {}, "scheduler": {}}}')
    assert "name the service worker" in refused("logs", "worker-1", "scheduler")


LOGGED = "\x1b[2Kworker-1  | \x1b[1;31mred\x1b[0m [2K] é\n"


@pytest.fixture
def logged(project, docker):
    project.env_file.write_text("AIRFLOW_IMAGE=a\n")
    docker.answer("config", out='{"name": "airflow-ha", "services": {"worker": {}}}')
    docker.answer("logs", out=LOGGED, code=3)


@pytest.mark.usefixtures("logged")
def test_logs_in_a_pipe_have_no_escape_sequences():
    result = run("logs", "worker")
    assert result.stdout == "worker-1  | red [2K] é\n"
    assert result.returncode == 3


@pytest.mark.usefixtures("logged")
def test_logs_in_a_terminal_keep_their_colours():
    terminal, stdout = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}/src:{ROOT}"}
    command = [sys.executable, "-m", "ops", "logs", "worker"]
    assert subprocess.run(command, cwd=ROOT, stdout=stdout, env=environment, check=False).returncode == 3
    os.close(stdout)
    assert "\x1b[1;31mred" in os.read(terminal, 1000).decode()
    os.close(terminal)


@pytest.mark.usefixtures("logged")
def test_logs_into_a_closed_pipe_end_silently():
    reader, writer = os.pipe()
    os.close(reader)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}/src:{ROOT}"}
    command = [sys.executable, "-m", "ops", "logs", "worker"]
    ended = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, env=environment, check=False)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_malformed_env_file_is_refused_with_its_line(refused, project):
    project.env_file.write_text("AIRFLOW_PORT 8080\n")
    error = refused("up")
    assert ".env, line 1" in error


def test_down_volumes_without_a_terminal_is_refused(refused, project, docker):
    project.env_file.write_text("AIRFLOW_IMAGE=a\n")
    docker.answer("volume ls", out="airflow-ha_postgres-data\n")
    assert "--yes" in refused("down", "--volumes")


def test_down_volumes_deletes_what_it_lists_but_no_backup(project, docker):
    project.env_file.write_text("AIRFLOW_IMAGE=a\n")
    docker.answer("volume ls", out="airflow-ha_postgres-data\nairflow-ha_redis-data\nairflow-ha_backup-repository\n")
    result = run("down", "--volumes", "--yes")
    assert result.returncode == 0
    assert "airflow-ha_postgres-data, airflow-ha_redis-data" in result.stdout
    assert ["volume", "rm", "airflow-ha_postgres-data", "airflow-ha_redis-data"] in docker.calls()
    assert not any("--volumes" in call for call in docker.calls()), "backups survive the deletion of the data"


def test_down_keeps_the_data(project, docker):
    project.env_file.write_text("AIRFLOW_IMAGE=a\n")
    docker.answer("volume ls", out="airflow-ha_postgres-data\n")
    result = run("down")
    assert "airflow-ha_postgres-data" in result.stdout
    assert not any("--volumes" in call for call in docker.calls())


@pytest.mark.parametrize("options", [(), ("--volumes", "--yes")])
def test_down_removes_the_tmp_volume_of_a_recreated_worker(project, docker, options):
    """Compose keeps it, because it attaches it to the new container by name (see without_leftover_volumes)."""
    project.env_file.write_text("AIRFLOW_IMAGE=a\n")
    docker.answer("ps --all", out="worker")
    docker.answer("inspect", out=json.dumps([{"Mounts": [{"Name": "a" * 64}]}]))
    docker.answer("volume ls", out="a" * 64)
    assert run("down", *options).returncode == 0
    assert ["volume", "rm", "a" * 64] in docker.calls()


def test_conf_that_is_not_json_is_refused_with_the_position():
    with pytest.raises(StackError, match="not JSON") as refused:
        parse_conf('{"tasks": 3,}')
    assert "line 1, column 1" in refused.value.where


def test_conf_that_is_not_an_object_is_refused():
    with pytest.raises(StackError, match="JSON list"):
        parse_conf("[1]")


def test_status_before_up_exits_with_1_and_names_up(project, docker):
    result = run("status")
    assert result.returncode == 1
    assert "./ops/stack up" in result.stdout


COMMANDS = (
    "up",
    "status",
    "doctor",
    "support-bundle",
    "scale",
    "restart",
    "trigger",
    "logs",
    "alerts",
    "silence",
    "slack",
    "test",
    "down",
)


def test_help_names_every_command():
    text = run("--help").stdout
    assert all(name in text for name in COMMANDS)


def test_scale_argument_is_a_service_and_a_number():
    assert parse_scale("worker=4") == ("worker", 4)


@pytest.mark.parametrize("argument", ["worker", "nobody=2"])
def test_scale_argument_without_a_number_or_service_is_refused(argument):
    with pytest.raises(StackError):
        parse_scale(argument)


def test_second_up_waits_and_reports_the_lock_holder(project):
    reported: list[str] = []
    entered = threading.Event()

    def second() -> None:
        with stack_lock(project, "up", reported.append):
            entered.set()

    with stack_lock(project, "up", print):
        thread = threading.Thread(target=second)
        thread.start()
        deadline = time.monotonic() + 5
        while not reported and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not entered.is_set()
    thread.join(5)
    assert entered.is_set()
    assert "`ops/stack up` (process" in reported[0]


def test_wait_for_the_lock_ends_after_its_timeout(project):
    with stack_lock(project, "up", print), pytest.raises(StackError, match="ops/stack up"):
        with stack_lock(project, "scale", print, wait_seconds=0.3):
            pass


def test_interrupted_up_exits_with_130_and_names_up(project, docker):
    """Ctrl-C reaches the whole process group, as from a terminal; the fake docker hangs at its first call."""
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
        # A process that a shell starts in the background ignores SIGINT; one in a terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert command.stdout
    while "Pre-flight" not in command.stdout.readline():
        assert command.poll() is None
    os.killpg(command.pid, signal.SIGINT)
    _, error = command.communicate(timeout=20)
    assert command.returncode == 130
    assert "./ops/stack up" in error


@pytest.mark.parametrize(
    ("arguments", "ran", "code"),
    [
        ([], ["checks", "tests/unit", "images", "tests/images", "tests/integration", "tests/resilience"], FAILURE),
        (["checks"], ["checks"], FAILURE),
        (["tests/unit/ml", "-k", "row"], ["tests/unit/ml"], 0),
    ],
)
def test_failed_check_does_not_skip_the_other_checks(monkeypatch, arguments, ran, code):
    seen = []

    @contextmanager
    def in_background(arguments):
        seen.append(arguments[0])
        yield lambda: 0

    monkeypatch.setattr(test_command, "checks", lambda: seen.append("checks") or {"bad": ["false"], "good": ["true"]})
    monkeypatch.setattr(test_command, "obtain_images", lambda: seen.append("images") or True)
    monkeypatch.setattr(test_command, "pytest", lambda arguments: seen.append(arguments[0]) or 0)
    monkeypatch.setattr(test_command, "in_background", in_background)
    result = CliRunner().invoke(app, ["test", *arguments])
    assert (seen, result.exit_code) == (ran, code)
    assert ("good: passed" in result.output) == ("checks" in ran)


def test_suite_in_the_background_prints_its_output_at_the_end(capfd):
    with test_command.in_background(["--version"]) as finish:
        assert finish() == 0
    assert "pytest" in capfd.readouterr().out


def test_image_that_cannot_be_obtained_skips_the_suites_with_containers(monkeypatch):
    ran = []
    monkeypatch.setattr(test_command, "obtain_images", lambda: False)
    monkeypatch.setattr(test_command, "pytest", lambda arguments: ran.append(arguments[0]) or 0)
    assert test_command.run_suites() == ["images"]
    assert ran == ["tests/unit"]


def test_benches_are_listed_without_a_stack():
    result = CliRunner().invoke(app, ["bench"])
    assert result.exit_code == 0
    assert all(name in result.output for name in ("latency", "fanout", "schedulers", "dag-files", "telemetry"))


def test_unknown_bench_is_refused_with_the_known_benches(refused):
    error = refused("bench", "speed")
    assert "'speed'" in error
    assert "latency" in error


def test_bench_write_without_stock_is_refused(refused):
    assert "--stock" in refused("bench", "latency", "--write")
