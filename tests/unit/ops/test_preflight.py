"""The checks of `up` before it changes anything."""

from __future__ import annotations

import os
import shutil
import socket
from types import SimpleNamespace

import psutil
import pytest

from ops import preflight, settings_file
from ops.errors import StackError
from ops.services import PUBLISHED


@pytest.fixture
def settings(project):
    # Ports that are free: the default ones may be in use on this machine.
    ports = {published.port: str(free_port()) for published in PUBLISHED}
    return settings_file.read(project) | ports | {"COMPOSE_PROFILES": "data,flower"}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.usefixtures("docker")
def test_port_in_use_is_refused_with_its_process(project, settings):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        settings["AIRFLOW_PORT"] = str(listener.getsockname()[1])
        with pytest.raises(StackError) as refused:
            preflight.check_ports(project, settings, own=frozenset())
    text = str(refused.value)
    assert f"port {settings['AIRFLOW_PORT']} for gateway" in text
    assert f"(process {os.getpid()})" in text
    assert "AIRFLOW_PORT" in text


def test_port_in_use_by_a_container_is_refused_with_its_name(project, settings, docker):
    docker.answer("ps --filter=publish=", out="somebody-else-web-1\n")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        settings["FLOWER_PORT"] = str(listener.getsockname()[1])
        with pytest.raises(StackError, match=r"for flower: .*somebody-else-web-1"):
            preflight.check_ports(project, settings, own=frozenset())


def test_address_of_another_machine_is_refused(project, settings, docker):
    settings["BIND_ADDRESS"] = "192.0.2.1"
    with pytest.raises(StackError, match="for gateway: Cannot assign requested address"):
        preflight.check_ports(project, settings, own=frozenset())


def test_port_of_the_stacks_own_container_is_accepted(project, settings):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        settings["AIRFLOW_PORT"] = str(listener.getsockname()[1])
        preflight.check_ports(project, settings, own=frozenset([int(settings["AIRFLOW_PORT"])]))


def test_running_stack_cannot_move_to_a_port_in_use(project, settings, docker):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        settings["AIRFLOW_PORT"] = str(listener.getsockname()[1])
        with pytest.raises(StackError, match="for gateway"):
            preflight.check_ports(project, settings, own=frozenset())


def test_the_door_publishes_every_port_with_flower_alone(project, settings, docker):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        settings["GRAFANA_PORT"] = str(listener.getsockname()[1])
        with pytest.raises(StackError, match="for grafana"):
            preflight.check_ports(project, settings, own=frozenset())


def test_port_of_an_inactive_profile_is_not_checked(project, settings):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        settings |= {"FLOWER_PORT": str(listener.getsockname()[1]), "COMPOSE_PROFILES": "data"}
        preflight.check_ports(project, settings, own=frozenset())


def test_too_little_memory_is_refused_with_the_figures(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=3 * preflight.GIB))
    with pytest.raises(StackError, match=r"4\.0 GiB .* 3\.0 GiB"):
        preflight.check_memory()


def test_too_little_disk_is_refused_with_the_figures(monkeypatch, docker, tmp_path):
    docker.answer("info", out=str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=preflight.GIB))
    with pytest.raises(StackError, match=r"8\.0 GiB .* 1\.0 GiB") as refused:
        preflight.check_disk()
    assert refused.value.where == str(tmp_path)


def test_missing_docker_is_refused(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(StackError, match="Docker is not installed"):
        preflight.check_docker()


def test_missing_docker_permission_is_refused_with_the_group(docker):
    docker.answer("version", err="permission denied while trying to connect to the Docker daemon socket", code=1)
    with pytest.raises(StackError, match="permission denied") as refused:
        preflight.check_docker()
    assert "usermod -aG docker" in refused.value.hint


def test_daemon_without_an_answer_is_refused(docker):
    docker.answer("version", err="Cannot connect to the Docker daemon. Is the docker daemon running?", code=1)
    with pytest.raises(StackError, match="daemon does not answer"):
        preflight.check_docker()


def test_dag_file_unreadable_for_the_containers_is_refused(project, settings, tmp_path):
    folder = tmp_path / "dags"
    folder.mkdir()
    (folder / "mine.py").write_text("")
    settings["DAGS_DIR"] = str(folder)
    preflight.check_dags(project, settings)
    (folder / "mine.py").chmod(0o600)
    with pytest.raises(StackError, match="DAGS_DIR") as refused:
        preflight.check_dags(project, settings)
    assert "mine.py" in refused.value.where


def test_missing_dags_folder_is_refused(project, settings):
    settings["DAGS_DIR"] = "../no-dags"
    with pytest.raises(StackError, match="DAGS_DIR") as refused:
        preflight.check_dags(project, settings)
    assert refused.value.where == str(project.root / "no-dags")


@pytest.mark.parametrize("variable", ["POSTGRES_HOST", "REDIS_HOST"])
def test_no_data_profile_requires_external_hosts(project, settings, variable):
    settings |= {"COMPOSE_PROFILES": "flower", "POSTGRES_HOST": "db.example", "REDIS_HOST": "cache.example"}
    preflight.check_external(project, settings)
    settings[variable] = settings_file.defaults(project)[variable]
    with pytest.raises(StackError, match=variable) as refused:
        preflight.check_external(project, settings)
    assert "--profile data" in refused.value.hint


def test_two_pages_on_one_port_are_refused(project, settings):
    settings["FLOWER_PORT"] = settings["AIRFLOW_PORT"]
    with pytest.raises(StackError, match=r"AIRFLOW_PORT and FLOWER_PORT"):
        preflight.check_ports(project, settings, own=frozenset())
    preflight.check_ports(project, settings | {"COMPOSE_PROFILES": "data"}, own=frozenset())
