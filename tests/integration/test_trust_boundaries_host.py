"""What a user of the host without Docker's rights can reach: files of secrets, Docker, ports of containers."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import httpx
import pytest

from ops.secrets_store import GENERATORS, READERS
from tests.stack import Stack, docker

SOCKETS = (Path("/run/docker.sock"), Path("/var/run/docker.sock"))
LISTENING = "0A"
LOOPBACK = ("7F", "0" * 24 + "01000000")
"""The state of a listening socket in /proc/net/tcp, and the ends of the addresses 127.0.0.0/8 and ::1."""
WITH_A_LOG_IN = {
    "gateway": {8080: "/api/v2/dags", 8081: "/execution/variables/any"},
    "api-server": {8080: "/api/v2/dags"},
    "execution-api": {8080: "/execution/variables/any"},
    "pages": dict.fromkeys((5555, 8025, 9090, 9093, 9094, 16686), "/"),
    "flower": {5555: "/"},
    "prometheus": {9090: "/api/v1/query?query=up"},
    "alertmanager-1": {9093: "/api/v2/status"},
    "alertmanager-2": {9093: "/api/v2/status"},
    "postgres-exporter": {9187: "/metrics"},
}
"""Ports that refuse a request to this path without a log-in."""
WITHOUT_A_LOG_IN = {
    "gateway": {8405: "/metrics"},
    "pages": {8405: "/metrics"},
    "flower": {5555: "/metrics"},
    "scheduler": {8974: "/health"},
    "statsd-exporter": {9102: "/metrics"},
    "otel-collector": {8888: "/metrics", 8889: "/metrics", 8890: "/metrics", 13133: "/"},
    "cadvisor": {8080: "/metrics"},
    "redis-exporter": {9121: "/metrics"},
    "slack-stub": {8025: "/messages"},
}
"""Ports that answer this path for whoever reaches the container's address, as a user of a Linux host does."""
OTHER = {
    "postgres": {5432},  # a log-in: test_access.py
    "redis": {6379},
    "pages": {3000},  # Grafana's own log-in
    "statsd-exporter": {9125},  # write only
    "otel-collector": {4317, 4318},
    "alertmanager-1": {9094},  # the cluster of the two, without a log-in
    "alertmanager-2": {9094},
}
"""Ports of other protocols, or without a path to request."""


def find(stack: Stack, uid: int, *options: str) -> list[str]:
    """Return the paths that `find` prints for a user, relative to the stack's folder."""
    command = ["docker", "run", "--rm", "--network=none", f"--user={uid}:{uid}", "--entrypoint=find"]
    command += [f"--volume={stack.state}:/state:ro", stack.settings["AIRFLOW_IMAGE"], *options]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return [path.removeprefix("/state/") for path in output.splitlines()]


def test_a_host_user_reads_no_secret_file(stack: Stack):
    owner = (stack.state / "secrets").stat().st_uid
    files = find(stack, owner, "/state/secrets", "-type", "f", "-readable")
    assert {"secrets/jwt_users_key", "secrets/airflow_admin_password"} <= set(files)
    for uid in {65534, *READERS.values()} - {owner}:
        assert find(stack, uid, "/state/secrets", "-mindepth", "1") == [], uid
    values = {name: stack.secret(name) for name in GENERATORS}
    leaks = [
        (path, name)
        for path in find(stack, 65534, "/state", "-type", "f", "-readable")
        for name, value in values.items()
        if value.encode() in (stack.state / path).read_bytes()
    ]
    assert leaks == []


def test_no_container_can_use_docker_or_the_hosts_devices(stack: Stack):
    for container in stack.containers(include_exited=True):
        inspected = container.inspect()
        sources = [Path(mount["Source"]) for mount in inspected["Mounts"]]
        assert [source for source in sources for path in SOCKETS if path.is_relative_to(source)] == []
        host = inspected["HostConfig"]
        assert (host["Privileged"], host["Devices"] or []) == (False, []), container.service
        assert "host" not in (host["NetworkMode"], host["PidMode"], host["IpcMode"]), container.service


@pytest.mark.skipif(not SOCKETS[0].exists(), reason="Docker has no socket on this host")
def test_a_host_user_may_not_use_docker():
    """Whoever is in the socket's group has root's rights on the host."""
    assert SOCKETS[0].stat().st_mode & (stat.S_IROTH | stat.S_IWOTH) == 0


def listening(stack: Stack) -> dict[str, set[int]]:
    """Return the TCP ports of each service that other addresses than its own loopback reach."""
    ports: dict[str, set[int]] = {}
    for container in stack.containers():
        if container.service in ("grafana", "jaeger"):
            continue  # they run only where their images can be pulled
        pid = docker("inspect", "--format={{.State.Pid}}", container.id).strip()
        for name in ("tcp", "tcp6"):
            for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
                address, port = line.split()[1].split(":")
                if line.split()[3] == LISTENING and not address.endswith(LOOPBACK):
                    ports.setdefault(container.service, set()).add(int(port, 16))
    return ports


def statuses(stack: Stack, ports: dict[str, dict[int, str]]) -> dict[tuple[str, int], int]:
    """Return the status of a request without a log-in to each port, by the container's own addresses."""
    answers = {}
    for service, paths in ports.items():
        for container in stack.containers(service)[:1]:
            for port, path in paths.items():
                answers[service, port] = first_status([f"http://{ip}:{port}{path}" for ip in container.ip.values()])
    return answers


def first_status(urls: list[str]) -> int:
    """Return the status of the first URL that is served: some services listen on one of their networks only."""
    for url in urls:
        try:
            return httpx.get(url, timeout=10).status_code
        except httpx.ConnectError:
            continue
    raise AssertionError(f"nothing answers at {urls}")


def test_a_host_user_reaches_these_ports_without_a_log_in(stack: Stack):
    running = {container.service for container in stack.containers()}
    expected: dict[str, set[int]] = {}
    for part in (WITH_A_LOG_IN, WITHOUT_A_LOG_IN, OTHER):
        for service in part.keys() & running:
            expected.setdefault(service, set()).update(part[service])
    assert listening(stack) == expected
    assert set(statuses(stack, WITH_A_LOG_IN).values()) <= {401, 403}
    assert set(statuses(stack, WITHOUT_A_LOG_IN).values()) == {200}
