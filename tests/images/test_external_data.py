"""Every client logs in to an external Postgres and Redis with mutual TLS, and refuses a server that is not theirs."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import time
import uuid
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import httpx
import pytest
import redis
from airflow.configuration import conf
from airflow.providers.celery.executors.default_celery import get_default_celery_config
from flower.utils.broker import Broker
from kombu import Connection
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

from ops import external_data, redis_users, secrets_store, settings_file
from ops.project import ROOT, Project
from ops.rotation_state import InUse
from tests.certificates import Authority
from tests.docker_session import session_name
from tests.images.conftest import RESTRICTIONS, docker
from tests.images.test_data_images import DATABASE_USER, wait_for
from tests.link_problems import link_problems
from tests.own_stack import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HOST = "localhost"
OTHER_HOST = "127.0.0.1"
"""The same server under a name that its certificate does not have."""
USERS = {
    "REDIS_USER": "worker",
    "REDIS_SCHEDULER_USER": "scheduler",
    "REDIS_FLOWER_USER": "flower",
    "REDIS_MONITORING_USER": "exporter",
}
PREPARE = """
install -m 600 /tls/server.pem "$PGDATA/server.pem"
cp /tls/authority.pem "$PGDATA/clients.pem"
printf "%s\\n" "ssl = on" "ssl_cert_file = 'server.pem'" "ssl_key_file = 'server.pem'" "ssl_ca_file = 'clients.pem'" \\
  >>"$PGDATA/postgresql.conf"
printf "%s\\n" "local all all trust" "host all all 127.0.0.1/32 trust" \\
  "hostssl all all all scram-sha-256 clientcert=verify-ca" >"$PGDATA/pg_hba.conf"
"""
REFUSAL = re.compile(r"certificate|host ?name|ssl|tls|dial redis", re.IGNORECASE)


@dataclass
class Servers:
    """The ports of both servers by the state of their certificates, and the operator's files.

    Args:
        project: The operator's files.
        authority: Of every certificate.
        start: Starts both with certificates that are valid for some days, and returns their ports.
    """

    project: Project
    authority: Authority
    start: Callable[[int], dict[str, str]]

    @cached_property
    def valid(self) -> dict[str, str]:
        return self.start(1)

    @cached_property
    def expired(self) -> dict[str, str]:
        return self.start(-1)


@pytest.fixture(scope="module")
def servers(images, tmp_path_factory) -> Iterator[Servers]:
    """A Postgres and a Redis that ask for client certificates, with certificates that a test chooses."""
    folder = tmp_path_factory.mktemp("external")
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.getuid() and str(path).startswith("/tmp/"):
            path.chmod(path.stat().st_mode | 0o055)
    project, authority = Project(ROOT, folder / "state"), Authority("servers")
    project.state.mkdir()
    secrets_store.generate(project)
    names: list[str] = []

    def run(*arguments: str) -> str:
        names.append(f"{session_name()}-{uuid.uuid4().hex[:8]}")
        answer = docker("run", "--detach", "--name", names[-1], *RESTRICTIONS, "--user", DATABASE_USER, *arguments)
        assert answer.status == 0, answer.output
        return names[-1]

    def start(days: int) -> dict[str, str]:
        tls = folder / f"{days}"
        tls.mkdir()
        (tls / "server.pem").write_text(authority.issue(HOST, days=days))
        (tls / "authority.pem").write_text(authority.pem)
        (tls / "users.acl").write_text(users(project))
        (tls / "10-tls.sh").write_text(PREPARE)
        return {
            "REDIS_PORT": port_of(start_redis(run, images["REDIS_IMAGE"].reference, tls), "6379"),
            "POSTGRES_PORT": port_of(start_postgres(run, images["POSTGRES_IMAGE"].reference, tls, project), "5432"),
        }

    try:
        yield Servers(project, authority, start)
    finally:
        for name in names:
            docker("rm", "--force", "--volumes", name)


def users(project: Project) -> str:
    secrets = {name: secrets_store.read(project, name) for name in secrets_store.GENERATORS}
    return redis_users.with_hashes(project, "redis/users.acl", InUse(secrets))


def port_of(container: str, port: str) -> str:
    return docker("port", container, port).output.strip().rpartition(":")[2]


def start_redis(run: Callable[..., str], reference: str, tls: Path) -> str:
    container = run(
        *("--publish", "127.0.0.1::6379", "--tmpfs", "/data:uid=999,gid=999", "--volume", f"{tls}:/tls:ro"),
        *("--entrypoint", "redis-server", reference, "--port", "0", "--tls-port", "6379", "--tls-auth-clients", "yes"),
        *("--tls-cert-file", "/tls/server.pem", "--tls-key-file", "/tls/server.pem"),
        *("--tls-ca-cert-file", "/tls/authority.pem", "--aclfile", "/tls/users.acl"),
    )
    wait_for(container, "sh", "-c", "grep -q :18EB /proc/net/tcp /proc/net/tcp6")
    return container


def start_postgres(run: Callable[..., str], reference: str, tls: Path, project: Project) -> str:
    names = ("superuser", "airflow", "celery", "monitoring")
    for name in names:
        (tls / f"postgres_{name}_password").write_text(secrets_store.read(project, f"postgres_{name}_password"))
    container = run(
        *("--publish", "127.0.0.1::5432", "--tmpfs", "/tmp"),
        *("--tmpfs", "/var/run/postgresql:uid=999,gid=999,mode=3775"),
        *("--tmpfs", "/var/lib/postgresql/data:uid=999,gid=999,mode=700", "--volume", f"{tls}:/tls:ro"),
        *("--env", "POSTGRES_PASSWORD_FILE=/run/secrets/postgres_superuser_password"),
        *("--env", "POSTGRES_USER=postgres", "--env", "PGDATA=/var/lib/postgresql/data/pgdata"),
        *(part for name in names
          for part in ("--volume", f"{tls}/postgres_{name}_password:/run/secrets/postgres_{name}_password:ro")),
        *("--volume", f"{tls}/10-tls.sh:/docker-entrypoint-initdb.d/10-tls.sh:ro"),
        *("--volume", f"{ROOT}/compose/postgres/create-databases.sh:/docker-entrypoint-initdb.d/20-databases.sh:ro"),
        reference,
        *("postgres", "-c", "fsync=off"),
    )  # fmt: skip
    wait_for(container, "pg_isready", "-q", "-h", "127.0.0.1", "-d", "airflow")
    wait_for(container, "sh", "-c", 'psql -h 127.0.0.1 -U postgres -Atc "SHOW ssl" | grep -qx on')
    return container


@dataclass
class Clients:
    """The stack's clients with the files that they mount, in a folder of this machine.

    Args:
        files: Of secrets_store.mounted_files().
        settings: Of .env.
        folder: In place of /run/secrets.
    """

    files: dict[str, str]
    settings: dict[str, str]
    folder: Path
    program: Callable[[str, str], str]

    def __post_init__(self) -> None:
        for name, content in self.files.items():
            if name.partition("/")[0] in (*external_data.READERS, "postgres-exporter", "redis-exporter"):
                path = self.folder / name.partition("/")[2]
                path.touch(mode=0o600)
                path.write_text(content)

    def here(self, value: str) -> str:
        return value.replace("/run/secrets", str(self.folder))

    def url(self, name: str) -> str:
        return self.here(self.files[f"airflow/{name}"]).removeprefix("db+")

    def database(self, name: str) -> None:
        with create_engine(self.url(name)).connect() as connection:
            assert connection.execute(text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")).scalar() is True

    def async_database(self) -> None:
        async def ask() -> None:
            engine = create_async_engine(self.url("sql_alchemy_conn_async"))
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
            await engine.dispose()

        asyncio.run(ask())

    def broker(self, name: str) -> None:
        # kombu repeats a refused connection for 6 s.
        options = {"socket_connect_timeout": 3, "max_retries": 0}
        with Connection(self.url(name), transport_options=options) as connection:
            connection.default_channel.client.ping()

    def health_check(self) -> None:
        redis.Redis.from_url(self.url("celery_broker_url"), socket_connect_timeout=3).ping()

    def flower(self) -> None:
        """Flower's page of the queues, with the settings of its service."""
        options = {
            "SSL_ACTIVE": self.settings["REDIS_TLS"],
            "SSL_MUTUAL_TLS": self.settings["REDIS_MUTUAL_TLS"],
            "SSL_CACERT": self.here(self.settings["REDIS_CA"]),
            "SSL_CERT": self.here(self.settings["REDIS_CLIENT"]),
            "SSL_KEY": self.here(self.settings["REDIS_CLIENT"]),
            "BROKER_URL": self.url("flower_broker_url"),
        }
        with pytest.MonkeyPatch.context() as patch:
            for name, value in options.items():
                patch.setenv(f"AIRFLOW__CELERY__{name}", value)
            use_ssl = get_default_celery_config(conf)["broker_use_ssl"]
        timeouts = {"socket_connect_timeout": 10, "socket_timeout": 10}
        broker = Broker(self.url("flower_broker_url"), broker_use_ssl=use_ssl, broker_options=timeouts)
        (queue,) = asyncio.run(broker.queues(["default"]))
        assert queue["name"] == "default"

    def exporter(self, image: str, path: str, up: str, environment: dict[str, str], *arguments: str) -> None:
        port = free_port()
        command = [self.program(image, path), f"--web.listen-address=127.0.0.1:{port}", *map(self.here, arguments)]
        given = {name: self.here(value) for name, value in environment.items()}
        process = subprocess.Popen(command, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
                    break
                except httpx.TransportError:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
        finally:
            process.terminate()
            log, _ = process.communicate(timeout=10)
        if f"\n{up} 1\n" not in metrics:
            # The exporter of Redis reports a metric only, with the error of its retry, which is without TLS.
            reasons = [line for line in metrics.splitlines() if line.startswith("redis_exporter_last_scrape_error")]
            raise ConnectionError("\n".join([log, *reasons]))

    def postgres_exporter(self) -> None:
        server = f"{self.settings['POSTGRES_HOST']}:{self.settings['POSTGRES_PORT']}"
        environment = {
            "DATA_SOURCE_URI": f"{server}/postgres?{self.settings['POSTGRES_EXPORTER_TLS']}&connect_timeout=3",
            "DATA_SOURCE_USER": "monitoring",
            "DATA_SOURCE_PASS_FILE": "/run/secrets/postgres_exporter_password",
        }
        self.exporter("POSTGRES_EXPORTER_IMAGE", "/bin/postgres_exporter", "pg_up", environment)

    def redis_exporter(self) -> None:
        server = f"{self.settings['REDIS_HOST']}:{self.settings['REDIS_PORT']}"
        environment = {
            "REDIS_EXPORTER_TLS_CA_CERT_FILE": self.settings["REDIS_EXPORTER_CA"],
            "REDIS_EXPORTER_TLS_CLIENT_CERT_FILE": self.settings["REDIS_EXPORTER_CLIENT"],
            "REDIS_EXPORTER_TLS_CLIENT_KEY_FILE": self.settings["REDIS_EXPORTER_CLIENT"],
        }
        arguments = (f"--redis.addr=rediss://{server}", f"--redis.user={USERS['REDIS_MONITORING_USER']}")
        passwords = "--redis.password-file=/run/secrets/redis_exporter_passwords.json"
        self.exporter("REDIS_EXPORTER_IMAGE", "/redis_exporter", "redis_up", environment, *arguments, passwords)

    def outcomes(self) -> dict[str, str]:
        """Return the error of each client, empty where it logs in."""
        clients: dict[str, Callable[[], None]] = {
            "metadata": lambda: self.database("sql_alchemy_conn"),
            "metadata, async": self.async_database,
            "results": lambda: self.database("celery_result_backend"),
            "results of schedulers": lambda: self.database("celery_results_owner"),
            **{
                f"broker of {name}": lambda prefix=prefix: self.broker(f"{prefix}_broker_url")  # type: ignore[misc]
                for name, prefix in redis_users.CLIENTS.items()
            },
            "health check": self.health_check,
            "flower": self.flower,
            "postgres-exporter": self.postgres_exporter,
            "redis-exporter": self.redis_exporter,
        }
        return {name: error_of(client) for name, client in clients.items()} | self.before_the_start()

    def before_the_start(self) -> dict[str, str]:
        """Return what `up` reports of each link before it starts anything."""
        names = ("sql_alchemy_conn", "celery_broker_url")
        problems = link_problems(self.files, names)
        assert not [error for error in problems.values() if external_data.UNREACHABLE.search(error)], problems
        return {f"up: {name}": problems.get(name, "") for name in names}


def error_of(client: Callable[[], None]) -> str:
    try:
        client()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.fixture
def clients(servers: Servers, tmp_path, program) -> Callable[..., Clients]:
    """Return a function that gives the clients with the operator's files and settings."""

    def made(authority: Authority, ports: dict[str, str], client: str, **settings: str) -> Clients:
        project = servers.project
        for link in external_data.LINKS:
            (project.secrets / external_data.CA_FILES[link]).write_text(authority.pem)
            path = project.secrets / external_data.CLIENT_FILES[link]
            path.unlink(missing_ok=True)
            if client:
                path.touch(mode=0o600)
                path.write_text(client)
        hosts = {"POSTGRES_HOST": HOST, "REDIS_HOST": HOST}
        tls = {"COMPOSE_PROFILES": "flower,observability", "POSTGRES_SSLMODE": "verify-full", "REDIS_TLS": "true"}
        chosen = settings_file.defaults(project) | tls | hosts | ports | USERS | settings
        external_data.check(project, chosen)
        chosen |= external_data.derived(chosen, external_data.files(project, chosen))
        folder = tmp_path / uuid.uuid4().hex
        folder.mkdir()
        return Clients(secrets_store.mounted_files(project, chosen), chosen, folder, program)

    return made


def test_every_client_logs_in_with_mutual_tls(servers: Servers, clients):
    outcomes = clients(servers.authority, servers.valid, servers.authority.issue("airflow")).outcomes()
    assert {name: error for name, error in outcomes.items() if error} == {}


# test_inner_tls.py has the refusal of another host name in every run.
@pytest.mark.parametrize(
    "fault",
    [
        "foreign authority",
        "no client certificate",
        pytest.param("another host", marks=pytest.mark.nightly),
        pytest.param("expired", marks=pytest.mark.nightly),
    ],
)
def test_every_client_refuses_a_server_that_is_not_its_own(servers: Servers, clients, fault):
    client = "" if fault == "no client certificate" else servers.authority.issue("airflow")
    authority = Authority("foreign") if fault == "foreign authority" else servers.authority
    ports = servers.expired if fault == "expired" else servers.valid
    hosts = {"POSTGRES_HOST": OTHER_HOST, "REDIS_HOST": OTHER_HOST} if fault == "another host" else {}
    outcomes = clients(authority, ports, client, **hosts).outcomes()
    assert {name: error for name, error in outcomes.items() if not REFUSAL.search(error)} == {}
