"""PostgreSQL, Redis and HAProxy, official or fallback, behave as the compose files expect."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.images.conftest import Answer, docker

if TYPE_CHECKING:
    pass

DATABASE_USER = "999:999"
CREATE_ROLE = "CREATE ROLE worker LOGIN PASSWORD 'w'; CREATE DATABASE results OWNER worker;"


def wait_for(container: str, *command: str, seconds: float = 90) -> Answer:
    """Run a command in the container until it succeeds."""
    deadline = time.monotonic() + seconds
    while (answer := docker("exec", container, *command)).status:
        assert time.monotonic() < deadline, f"{command}: {answer.output}\n{docker('logs', container).output}"
    return answer


@pytest.fixture
def postgres(images, volume, start, readable):
    """Start the server as compose/data.yaml does; each call starts one on the same volume."""
    password = readable("password", "secret-of-the-test")
    roles = readable("10-roles.sql", CREATE_ROLE)
    script = readable("20-note.sh", 'psql -U "$POSTGRES_USER" -d results -c "CREATE TABLE noted (at int)"')

    def run() -> str:
        return start(
            *("--network", "none", "--user", DATABASE_USER, "--tmpfs", "/tmp"),
            *("--tmpfs", "/var/run/postgresql:uid=999,gid=999,mode=3775"),
            *("--env", "POSTGRES_PASSWORD_FILE=/run/secrets/password"),
            *("--env", "PGDATA=/var/lib/postgresql/data/pgdata"),
            *("--volume", f"{volume}:/var/lib/postgresql/data"),
            *("--volume", f"{password}:/run/secrets/password:ro"),
            *("--volume", f"{roles}:/docker-entrypoint-initdb.d/{roles.name}:ro"),
            *("--volume", f"{script}:/docker-entrypoint-initdb.d/{script.name}:ro"),
            *(images["POSTGRES_IMAGE"].reference, "postgres", "-c", "max_connections=37"),
        )

    return run


def query(container: str, sql: str, url: str) -> Answer:
    return docker("exec", container, "psql", "--no-psqlrc", "-At", "-c", sql, url)


def test_postgres_creates_its_database_with_the_init_scripts(postgres):
    container = postgres()
    # The server listens on TCP once the database is complete.
    wait_for(container, "pg_isready", "-q", "-h", "127.0.0.1")
    as_superuser = "postgresql://postgres:secret-of-the-test@127.0.0.1/postgres"
    assert query(container, "SHOW max_connections", as_superuser).output.strip() == "37"
    assert query(container, "SHOW server_encoding", as_superuser).output.strip() == "UTF8"
    as_worker = "postgresql://worker:w@127.0.0.1/results"
    assert query(container, "SELECT count(*) FROM pg_tables WHERE tablename = 'noted'", as_worker).output.strip() == "1"


def test_postgres_requires_a_password_on_the_network(postgres):
    container = postgres()
    wait_for(container, "pg_isready", "-q", "-h", "127.0.0.1")
    # The file is read: without a network the only address is 127.0.0.1, which initdb trusts.
    rules = docker("exec", container, "sh", "-c", 'tail -n 1 "$PGDATA/pg_hba.conf"').output.split()
    assert rules == ["host", "all", "all", "all", "scram-sha-256"]


def test_a_killed_postgres_keeps_its_data_without_init_scripts(postgres):
    first = postgres()
    wait_for(first, "pg_isready", "-q", "-h", "127.0.0.1")
    url = "postgresql://worker:w@127.0.0.1/results"
    assert query(first, "CREATE TABLE kept AS SELECT 42 AS answer", url).status == 0
    docker("kill", first)
    second = postgres()
    wait_for(second, "pg_isready", "-q", "-h", "127.0.0.1")
    assert query(second, "SELECT answer FROM kept", url).output.strip() == "42"


def test_postgres_without_a_password_names_the_variable_to_set(images, start):
    container = start(
        *("--network", "none", "--user", DATABASE_USER, "--tmpfs", "/tmp"),
        *("--tmpfs", "/var/run/postgresql:uid=999", images["POSTGRES_IMAGE"].reference),
    )
    assert docker("wait", container).output.strip() == "1"
    assert "POSTGRES_PASSWORD" in docker("logs", container).output


def test_the_images_stop_signal_stops_postgres_cleanly(postgres):
    container = postgres()
    wait_for(container, "pg_isready", "-q", "-h", "127.0.0.1")
    docker("stop", "--time", "30", container)
    assert "database system is shut down" in docker("logs", container).output
    assert docker("inspect", "--format", "{{.State.ExitCode}}", container).output.strip() == "0"


def test_a_killed_redis_keeps_its_data_and_needs_its_password(images, volume, start, readable):
    config = readable("redis.conf", "appendonly yes\nappendfsync always\nrequirepass p\n")
    reference = images["REDIS_IMAGE"].reference
    placed = ("--network", "none", "--user", DATABASE_USER, "--volume", f"{volume}:/data", "--entrypoint")
    server = (*placed, "redis-server", "--volume", f"{config}:/redis.conf:ro", reference, "/redis.conf")

    first = start(*server)
    assert wait_for(first, "redis-cli", "--no-auth-warning", "-a", "p", "SET", "kept", "42").output.strip() == "OK"
    assert "NOAUTH" in docker("exec", first, "redis-cli", "GET", "kept").output
    docker("kill", first)
    second = start(*server)
    wait_for(second, "sh", "-c", "redis-cli --no-auth-warning -a p GET kept | grep -qx 42")


def test_haproxy_serves_its_configuration(images, start, readable):
    config = readable(
        "haproxy.cfg",
        "defaults\n  mode http\n  timeout client 5s\n  timeout server 5s\n  timeout connect 5s\n"
        "frontend test\n  bind :8080\n"
        "  http-request return status 200 content-type text/plain string it-serves\n",
    )
    place = "/usr/local/etc/haproxy/haproxy.cfg"
    container = start(
        *("--network", "none", "--user", "99:99", "--tmpfs", "/tmp"),
        *("--volume", f"{config}:{place}:ro", "--entrypoint", "haproxy"),
        *(images["GATEWAY_IMAGE"].reference, "-W", "-db", "-f", place),
    )
    ask = "exec 3<>/dev/tcp/127.0.0.1/8080; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; grep -q it-serves <&3"
    wait_for(container, "bash", "-c", ask)
