"""`docker compose` runs with the settings of .env, whatever the shell's environment, and its output is parsed."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from ops import compose
from ops.errors import StackError
from tests.unit.stack_fakes import container


def test_env_file_wins_over_the_shell(project, monkeypatch):
    project.env_file.write_text("WORKER_REPLICAS=2\n")
    monkeypatch.setenv("WORKER_REPLICAS", "9")
    monkeypatch.setenv("COMPOSE_FILE", "another.yaml")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")
    environment = compose.environment(project)
    assert not {"WORKER_REPLICAS", "COMPOSE_FILE"} & environment.keys()
    assert environment["HTTPS_PROXY"] == "http://proxy.example"


def test_container_removed_before_inspect_is_left_out(docker):
    remaining = container("worker", 1, health="healthy")
    docker.answer("ps --all", out=f"{remaining['Id']}\nb\n")
    docker.answer("inspect", out=json.dumps([remaining]), err="Error: No such object: b", code=1)
    assert [instance.id for instance in compose.instances("airflow-ha")["worker"]] == ["worker100000"]


def test_docker_failure_is_an_error_with_its_output(docker):
    docker.answer("ps --all", err="Cannot connect to the Docker daemon", code=1)
    with pytest.raises(StackError, match="docker ps: Cannot connect"):
        compose.instances("airflow-ha")


def test_ports_of_an_instance_are_those_of_the_host(docker):
    gateway = container("gateway", 1, health="healthy")
    gateway["NetworkSettings"] = {
        "Ports": {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "9090"}], "8081/tcp": None}
    }
    docker.answer_containers(gateway)
    assert compose.instances("airflow-ha")["gateway"][0].ports == {9090}


def test_stopped_or_paused_instance_is_not_healthy(docker):
    stopped = container("worker", 1, state="exited", health="healthy", code=137)
    paused = container("worker", 2, state="paused", health="healthy")
    docker.answer_containers(stopped, paused)
    assert [instance.is_healthy for instance in compose.instances("airflow-ha")["worker"]] == [False, False]


def test_background_command_is_terminated_with_the_block(project, docker):
    docker.answer("up", hangs=True)
    with compose.run_in_background(project, "up", "--detach") as has_succeeded:
        assert has_succeeded() is False


def test_background_failure_is_an_error_with_its_last_lines(project, docker):
    docker.answer("up", err="Container a  Starting\ndependency failed to start: container a is unhealthy\n", code=1)

    def wait_for_end() -> None:
        with compose.run_in_background(project, "up", "--detach") as has_succeeded:
            while not has_succeeded():
                pass

    with pytest.raises(StackError, match=r"docker compose up:\n(?s:.*)container a is unhealthy"):
        wait_for_end()


def test_in_state_selects_the_state_and_the_services(docker):
    docker.answer_containers(
        container("worker", 1, health="healthy"),
        container("worker", 2, state="paused", health="healthy"),
        container("scheduler", 1, health="healthy"),
    )
    by_service = compose.instances("airflow-ha")
    running = [instance.id for instance in compose.in_state(by_service, "running")]
    assert running == ["scheduler100", "worker100000"]
    assert [instance.id for instance in compose.in_state(by_service, "paused", ["worker", "redis"])] == ["worker200000"]
    assert compose.in_state(by_service, "paused", ["scheduler"]) == []


class Freezer:
    """A Docker that pauses only the first of the requested containers, for a number of calls."""

    def __init__(self, *, misses: int, silent: set[str]) -> None:
        self.misses, self.silent = misses, silent
        self.paused: set[str] = set()

    def docker(self, command: str, *containers: str) -> str:
        if command == "unpause":
            self.paused.difference_update(containers)
            self.silent.difference_update(containers)
            return ""
        assert command == "pause"
        assert not self.paused.intersection(containers), "the container is paused already"
        self.paused.update(containers[:1] if self.misses else containers)
        if self.misses:
            self.misses -= 1
            raise StackError("cannot run docker pause: unable to freeze")
        return ""

    def inspect(self, containers: list[str]) -> list[dict]:
        assert not self.silent.intersection(containers), "Docker never answers for a silent container"
        return [{"Id": name, "State": {"Paused": name in self.paused}} for name in containers]


def freezer(monkeypatch, misses: int, silent: tuple[str, ...] = ()) -> Freezer:
    fake = Freezer(misses=misses, silent=set(silent))
    monkeypatch.setattr(compose, "docker", fake.docker)
    monkeypatch.setattr(compose, "inspect", fake.inspect)
    monkeypatch.setattr(compose, "answers", lambda container: container not in fake.silent)
    return fake


@pytest.mark.parametrize("misses", [0, 1, 2])
def test_pause_tries_again_only_what_is_not_paused_yet(monkeypatch, misses):
    fake = freezer(monkeypatch, misses)
    compose.pause(["a", "b", "c"])
    assert fake.paused == {"a", "b", "c"}


def test_paused_container_without_an_answer_is_paused_again(monkeypatch):
    fake = freezer(monkeypatch, 0, silent=("b",))
    compose.pause(["a", "b", "c"])
    assert fake.paused == {"a", "b", "c"}
    assert not fake.silent


def test_docker_without_an_answer_times_out(monkeypatch, tmp_path):
    monkeypatch.setattr(compose, "ANSWER_SECONDS", 0.2)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "docker").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "docker").chmod(0o755)
    assert not compose.answers("a")


def test_pause_fails_after_its_last_try(monkeypatch):
    fake = freezer(monkeypatch, 1000)
    with pytest.raises(StackError, match="unable to freeze"):
        compose.pause([str(number) for number in range(compose.PAUSE_TRIES + 1)])
    assert fake.misses == 1000 - compose.PAUSE_TRIES


def test_model_that_compose_refuses_hints_at_the_settings(project, docker):
    docker.answer("config", err="decoding failed", code=15)
    with pytest.raises(StackError, match="decoding failed") as refused:
        compose.config(project)
    assert ".env" in refused.value.hint


@pytest.mark.parametrize(
    ("config_hash", "image", "code", "is_outdated"),
    [("h1", "sha256:1", 0, False), ("h2", "sha256:1", 0, True), ("h1", "sha256:2", 0, True), ("h1", "", 1, True)],
    ids=["only its dependency is outdated", "other settings", "other image", "no such image"],
)
def test_outdated_containers_have_other_settings_or_images(project, docker, config_hash, image, code, is_outdated):
    listed = container("worker", 1) | {"Image": "sha256:1"}
    listed["Config"]["Image"] = "airflow"
    listed["Config"]["Labels"]["com.docker.compose.config-hash"] = config_hash
    dry_run = " DRY-RUN MODE -  Container x-worker-1  Recreate\n DRY-RUN MODE -  Container x-worker-1  Recreated\n"
    docker.answer("--dry-run", err=f"{dry_run} DRY-RUN MODE -  Container x-redis-1  Running\n")
    docker.answer("config --format json", out=json.dumps({"services": {}}))
    docker.answer("config --hash", out="worker h1\nredis h9\n")
    docker.answer("image inspect", out=image, code=code)
    docker.answer("inspect x-worker-1", out=json.dumps([listed]))
    assert compose.outdated(project) == ({listed["Id"][:12]} if is_outdated else set())


def test_hash_leaves_out_dependencies_whose_profile_is_off(project, docker, monkeypatch):
    """As `up` does: otherwise each change of Redis would replace every worker too."""
    services = {"worker": {"depends_on": {"redis-1": {}, "redis": {"required": False}}}, "redis-1": {}}
    docker.answer("config --format json", out=json.dumps({"services": services}))
    models: list[str] = []

    def run(arguments, seconds, what, *, stdin, environment):
        models.append(stdin)
        return subprocess.CompletedProcess(arguments, 0, "worker h1\n", "")

    monkeypatch.setattr(compose, "run_limited", run)
    assert compose.service_hashes(project) == {"worker": "h1"}
    assert json.loads(models[0])["services"] == {"worker": {"depends_on": {"redis-1": {}}}, "redis-1": {}}


def test_failed_stop_is_an_error(docker, monkeypatch):
    docker.answer("stop --time=7 a b", err="no such container", code=1)
    with pytest.raises(StackError, match="no such container"):
        compose.stop(["a", "b"], 7, "two workers", print)
    compose.stop([], 7, "none", print)
    assert len(docker.calls()) == 1


@pytest.mark.parametrize(("code", "guarded", "succeeds"), [(0, True, True), (1, True, False), (0, False, False)])
def test_probe_of_a_health_check_runs_without_its_guard(docker, code, guarded, succeeds):
    guard = ["sh", compose.GUARD, "3"] if guarded else []
    details = container("worker", 1) | {"Config": {"Healthcheck": {"Test": ["CMD", *guard, "probe", "worker"]}}}
    docker.answer("inspect", out=json.dumps([details]))
    docker.answer("exec", code=code)
    assert compose.probe_succeeds("worker1") is succeeds
    assert not guarded or docker.calls()[-1] == ["exec", "worker1", "timeout", "8", "probe", "worker"]
