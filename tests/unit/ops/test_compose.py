"""`docker compose` is called with what .env says, whatever the shell says, and its answers are read as they come."""

from __future__ import annotations

import json
import os

import pytest

from ops import compose
from ops.errors import StackError
from tests.unit.ops.test_status import container


def test_the_settings_file_wins_over_the_shell(project, monkeypatch):
    project.env_file.write_text("WORKER_REPLICAS=2\n")
    monkeypatch.setenv("WORKER_REPLICAS", "9")
    monkeypatch.setenv("COMPOSE_FILE", "another.yaml")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")
    environment = compose.environment(project)
    assert not {"WORKER_REPLICAS", "COMPOSE_FILE"} & environment.keys()
    assert environment["HTTPS_PROXY"] == "http://proxy.example"


def test_a_container_that_goes_away_meanwhile_is_left_out(docker):
    left = container("worker", 1, health="healthy")
    docker.answer("ps --all", out=f"{left['Id']}\nb\n")
    docker.answer("inspect", out=json.dumps([left]), err="Error: No such object: b", code=1)
    assert [instance.id for instance in compose.instances("airflow-ha")["worker"]] == ["worker100000"]


def test_a_docker_that_fails_is_said(docker):
    docker.answer("ps --all", err="Cannot connect to the Docker daemon", code=1)
    with pytest.raises(StackError, match="docker ps failed: Cannot connect"):
        compose.instances("airflow-ha")


def test_the_ports_of_an_instance_are_those_of_this_machine(docker):
    gateway = container("gateway", 1, health="healthy")
    gateway["NetworkSettings"] = {
        "Ports": {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "9090"}], "8081/tcp": None}
    }
    docker.answer("ps --all", out=gateway["Id"])
    docker.answer("inspect", out=json.dumps([gateway]))
    assert compose.instances("airflow-ha")["gateway"][0].ports == {9090}


def test_an_instance_that_is_stopped_or_paused_is_not_well_whatever_its_last_check_said(docker):
    stopped = container("worker", 1, state="exited", health="healthy", code=137)
    paused = container("worker", 2, state="paused", health="healthy")
    docker.answer("ps --all", out=f"{stopped['Id']}\n{paused['Id']}\n")
    docker.answer("inspect", out=json.dumps([stopped, paused]))
    assert [instance.ok for instance in compose.instances("airflow-ha")["worker"]] == [False, False]


def test_what_is_at_work_is_ended_with_the_block(project, docker):
    docker.answer("up", hangs=True)
    with compose.at_work(project, "up", "--detach") as ended:
        assert ended() is False


def test_what_fails_at_work_is_said_with_its_last_lines(project, docker):
    docker.answer("up", err="Container a  Starting\ndependency failed to start: container a is unhealthy\n", code=1)

    def until_it_ends() -> None:
        with compose.at_work(project, "up", "--detach") as ended:
            while not ended():
                pass

    with pytest.raises(StackError, match=r"docker compose up failed:\n(?s:.*)container a is unhealthy"):
        until_it_ends()


class Freezer:
    """Docker, which pauses one container of those that it is asked for, and misses the others."""

    def __init__(self, *, misses: int, silent: set[str]) -> None:
        self.misses, self.silent = misses, silent
        self.paused: set[str] = set()

    def docker(self, command: str, *containers: str) -> str:
        if command == "unpause":
            self.paused.difference_update(containers)
            self.silent.difference_update(containers)
            return ""
        assert command == "pause"
        assert not self.paused.intersection(containers), "it was paused already"
        self.paused.update(containers[:1] if self.misses else containers)
        if self.misses:
            self.misses -= 1
            raise StackError("docker pause failed: unable to freeze")
        return ""

    def inspect(self, containers: list[str]) -> list[dict]:
        assert not self.silent.intersection(containers), "Docker would never answer"
        return [{"Id": one, "State": {"Paused": one in self.paused}} for one in containers]


def freezer(monkeypatch, misses: int, silent: tuple[str, ...] = ()) -> Freezer:
    made = Freezer(misses=misses, silent=set(silent))
    monkeypatch.setattr(compose, "docker", made.docker)
    monkeypatch.setattr(compose, "inspect", made.inspect)
    monkeypatch.setattr(compose, "answers", lambda one: one not in made.silent)
    return made


@pytest.mark.parametrize("misses", [0, 1, 2])
def test_what_could_not_be_paused_at_once_is_tried_again_and_only_that(monkeypatch, misses):
    made = freezer(monkeypatch, misses)
    compose.pause(["a", "b", "c"])
    assert made.paused == {"a", "b", "c"}


def test_a_container_that_docker_is_silent_about_once_paused_is_thawed_and_paused_anew(monkeypatch):
    made = freezer(monkeypatch, 0, silent=("b",))
    compose.pause(["a", "b", "c"])
    assert made.paused == {"a", "b", "c"}
    assert not made.silent


def test_docker_that_does_not_answer_is_not_waited_for(monkeypatch, tmp_path):
    monkeypatch.setattr(compose, "ANSWER_SECONDS", 0.2)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "docker").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "docker").chmod(0o755)
    assert not compose.answers("a")


def test_what_cannot_be_paused_at_all_is_said(monkeypatch):
    made = freezer(monkeypatch, 1000)
    with pytest.raises(StackError, match="unable to freeze"):
        compose.pause([str(number) for number in range(compose.PAUSE_TRIES + 1)])
    assert made.misses == 1000 - compose.PAUSE_TRIES
