"""Access is limited: log-ins, networks, secrets."""

from __future__ import annotations

import json
import socket
import subprocess

import httpx
import pytest

from ops import secrets_store
from tests.stack import Stack, docker

SECRETS = sorted(secrets_store.GENERATORS)


def test_the_api_refuses_a_missing_or_wrong_password(stack: Stack):
    assert httpx.get(f"{stack.airflow_url}/api/v2/dags").status_code == httpx.codes.UNAUTHORIZED
    wrong = httpx.post(f"{stack.airflow_url}/auth/token", json={"username": "admin", "password": "admin"})
    assert wrong.status_code == httpx.codes.UNAUTHORIZED


def test_postgres_and_redis_cannot_be_reached_from_outside(stack: Stack):
    for service, network in {"postgres": "database", "redis": "broker"}.items():
        (container,) = stack.containers(service)
        inspected = container.inspect()
        assert not any(inspected["NetworkSettings"]["Ports"].values()), "no port of this machine leads there"
        assert set(container.ip) == {f"{stack.name}_{network}"}
        assert json.loads(docker("network", "inspect", f"{stack.name}_{network}"))[0]["Internal"] is True


@pytest.mark.parametrize(
    "path", ["/execution/health", "//execution/health", "/EXECUTION/health", "/%65xecution/health"]
)
def test_the_published_port_does_not_serve_the_execution_api(stack: Stack, path: str):
    with socket.create_connection(("127.0.0.1", int(stack.settings["AIRFLOW_PORT"])), timeout=5) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        status = connection.recv(100).split(b"\r\n")[0]
    assert b" 404 " in status


def test_only_the_doors_publish_ports_and_only_on_loopback(stack: Stack):
    published = {}
    for container in stack.containers():
        bindings = container.inspect()["HostConfig"]["PortBindings"] or {}
        if bindings:
            published[container.service] = {binding["HostIp"] for port in bindings.values() for binding in port}
    assert set(published) == {"gateway", "pages"}
    assert set.union(*published.values()) == {"127.0.0.1"}


def test_redis_refuses_who_has_no_password(stack: Stack):
    (redis,) = stack.containers("redis")
    assert "NOAUTH" in redis.execute("redis-cli", "ping", check=False).stdout


def test_no_secret_is_in_inspect_logs_or_process_lists(stack: Stack):
    values = {name: stack.secret(name) for name in SECRETS}
    containers = stack.containers(include_exited=True)
    outputs = {
        "docker inspect": docker("inspect", *(container.id for container in containers)),
        "process list": subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True).stdout,
    }
    for container in containers:
        result = subprocess.run(["docker", "logs", container.id], check=True, capture_output=True, text=True)
        outputs[f"log of {container.service}"] = result.stdout + result.stderr
    leaks = [(name, place) for place, text in outputs.items() for name, value in values.items() if value in text]
    assert leaks == []


def test_containers_run_without_root_on_a_read_only_image(stack: Stack):
    for container in stack.containers():
        inspected = container.inspect()
        assert inspected["HostConfig"]["ReadonlyRootfs"], container.service
        assert inspected["HostConfig"]["CapDrop"] == ["ALL"], container.service
        _, *processes = docker("top", container.id, "-eo", "pid,uid").splitlines()
        assert processes, container.service
        assert "0" not in [line.split()[1] for line in processes], container.service
