"""TLS=on: the servers as the compose files run them, and every client of both with certificates of the authority."""

from __future__ import annotations

import os
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ops import compose_model, data_tier, external_data, inner_tls, private_authority, secrets_store, settings_file
from ops.compose import GUARD
from ops.project import ROOT, Project
from tests.docker_session import session_name
from tests.images.conftest import RESTRICTIONS, docker
from tests.images.test_data_images import wait_for
from tests.images.test_external_data import REFUSAL, USERS, Clients

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

HOST, OTHER_HOST = "localhost", "127.0.0.2"
"""The second is the same server under a name that its certificate does not have."""
PORTS = {"postgres": "5432", "redis": "6379"}
SETTINGS = {"TLS": "on", "COMPOSE_PROFILES": "data,flower,observability", "POSTGRES_HOST": HOST, "REDIS_HOST": HOST}
MODEL = compose_model.read(ROOT / "compose", {"DATA_TLS": "on"})


@dataclass
class Servers:
    """A project with TLS=on, and its running containers by service."""

    project: Project
    containers: dict[str, str] = field(default_factory=dict)


def mounts(service: Mapping[str, Any], secrets: Path) -> Iterator[str]:
    """Yield the options that mount the secrets and files of a compose service."""
    for secret in service.get("secrets", []):
        source, target = (secret["source"], secret["target"]) if isinstance(secret, dict) else (secret, secret)
        file = MODEL["secrets"][source]["file"].replace("./secrets", str(secrets))
        yield from ("--volume", f"{file}:/run/secrets/{target}:ro")
    for volume in service["volumes"]:
        if volume.startswith("./"):
            yield from ("--volume", str(ROOT / "compose") + volume[1:])


def probe(service: str) -> list[str]:
    """Return the probe of a service's health check, without the script that restarts."""
    test = MODEL["services"][service]["healthcheck"]["test"]
    return list(test[test.index(GUARD) + 2 :])


@contextmanager
def running(images, state: Path, now: datetime) -> Iterator[Servers]:
    """Run Postgres and Redis with certificates of a moment, for the duration of the block."""
    state.mkdir()
    for path in (state, *state.parents):
        if path.stat().st_uid == os.getuid() and str(path).startswith("/tmp/"):
            path.chmod(path.stat().st_mode | 0o055)
    project = Project(ROOT, state)
    settings = settings_file.defaults(project) | SETTINGS
    secrets_store.generate(project)
    made, names = Servers(project), list[str]()

    def start(service: str) -> str:
        of = MODEL["services"][service]
        names.append(f"{session_name()}-{uuid.uuid4().hex[:8]}")
        data = next(volume.split(":")[1] for volume in of["volumes"] if volume.startswith(f"{service}-data:"))
        environment = of.get("environment", {})
        entrypoint = of.get("entrypoint", [])
        answer = docker(
            *("run", "--detach", "--name", names[-1], *RESTRICTIONS, "--user", of["user"]),
            *(f"--publish={address}::{PORTS[service]}" for address in ("127.0.0.1", OTHER_HOST)),
            *(f"--tmpfs={each}" for each in (*of["tmpfs"], f"{data}:uid=999,gid=999,mode=700")),
            *(f"--env={name}={value}" for name, value in environment.items()),
            *mounts(of, project.secrets),
            *([f"--entrypoint={entrypoint[0]}"] if entrypoint else []),
            *(images[f"{service.upper()}_IMAGE"].reference, *of["command"]),
        )
        assert answer.status == 0, answer.output
        return names[-1]

    try:
        private_authority.renew(project, inner_tls.CERTIFICATES, now)
        secrets_store.mount(project, settings, images["AIRFLOW_IMAGE"].reference)
        made.containers.update({service: start(service) for service in PORTS})
        wait_for(made.containers["redis"], "sh", "-c", "grep -q :18EB /proc/net/tcp /proc/net/tcp6")
        wait_for(made.containers["postgres"], *probe("postgres"))
        yield made
    finally:
        for name in names:
            docker("rm", "--force", "--volumes", name)


@pytest.fixture(scope="module")
def servers(images, tmp_path_factory) -> Iterator[Servers]:
    with running(images, tmp_path_factory.mktemp("inner") / "state", datetime.now(UTC)) as made:
        yield made


@pytest.fixture
def expired(images, tmp_path) -> Iterator[Servers]:
    """Servers whose certificates have expired."""
    then = datetime.now(UTC) - timedelta(days=private_authority.DAYS + 1)
    with running(images, tmp_path / "expired", then) as made:
        yield made


@pytest.fixture
def clients(tmp_path, program) -> Callable[..., Clients]:
    """Return a function that gives the stack's clients of these servers, with valid certificates of a project."""

    def made(servers: Servers, host: str = HOST, project: Project | None = None) -> Clients:
        project = project or servers.project
        settings = settings_file.defaults(project) | SETTINGS
        address = OTHER_HOST if host == OTHER_HOST else "127.0.0.1"
        for service, port in PORTS.items():
            published = docker("port", servers.containers[service], port).output.split()
            settings |= {
                f"{service.upper()}_HOST": host,
                f"{service.upper()}_PORT": next(p for p in published if p.startswith(address)).rpartition(":")[2],
            }
        secrets_store.generate(project)
        inner_tls.renew(project, settings)
        files = external_data.files(project, settings)
        settings |= external_data.derived(settings, files) | USERS
        # As compose/tls/airflow-on.yaml sets it.
        settings["REDIS_TLS"] = MODEL["services"]["flower"]["environment"]["AIRFLOW__CELERY__SSL_ACTIVE"]
        folder = tmp_path / uuid.uuid4().hex
        folder.mkdir()
        return Clients(secrets_store.mounted_files(project, settings), settings, folder, program)

    return made


def test_every_client_verifies_the_stacks_own_servers(servers: Servers, clients):
    outcomes = clients(servers).outcomes()
    assert {name: error for name, error in outcomes.items() if error} == {}


def refusals(outcomes: Mapping[str, str]) -> dict[str, str]:
    """Return the outcome of each client that does not refuse the server."""
    return {name: error for name, error in outcomes.items() if not REFUSAL.search(error)}


# test_external_data.py has the refusal of a foreign authority in every run.
@pytest.mark.parametrize("fault", ["another host", pytest.param("foreign authority", marks=pytest.mark.nightly)])
def test_every_client_refuses_a_server_without_its_name(servers: Servers, clients, tmp_path, fault):
    host, project = OTHER_HOST, servers.project
    if fault == "foreign authority":
        host, project = HOST, Project(ROOT, tmp_path / "foreign")
        project.state.mkdir()
    assert refusals(clients(servers, host, project).outcomes()) == {}


@pytest.mark.nightly
def test_every_client_refuses_a_server_that_has_expired(expired: Servers, clients):
    assert refusals(clients(expired).outcomes()) == {}


def test_a_client_without_a_certificate_gets_nothing(servers: Servers):
    """Neither in plain text nor with TLS: a password is not enough."""
    postgres, redis = servers.containers["postgres"], servers.containers["redis"]
    password = secrets_store.read(servers.project, "postgres_airflow_password")
    for mode, reason in (("disable", "no encryption"), ("require", "client certificate")):
        # Not by 127.0.0.1, where the health check connects without TLS.
        connect = f"exec psql --no-psqlrc -c 'SELECT 1' postgresql://airflow@$(hostname)/airflow?sslmode={mode}"
        answer = docker("exec", f"--env=PGPASSWORD={password}", postgres, "sh", "-c", connect)
        assert reason in answer.output, answer.output
    operator = secrets_store.read(servers.project, "redis_operator_password")
    for options in ((), ("--tls", "--insecure")):
        command = ("/usr/bin/env", "PATH=/usr/local/bin:/usr/bin:/bin", f"REDISCLI_AUTH={operator}", "redis-cli")
        answer = docker("exec", redis, *command, *options, "--user", "operator", "-h", "127.0.0.1", "ping")
        assert "PONG" not in answer.output, answer.output


def test_health_checks_and_the_operator_connect(servers: Servers):
    for service, container in servers.containers.items():
        wait_for(container, *probe(service))
    assert data_tier.ask_redis(servers.containers["redis"], "ping") == "PONG"
    assert data_tier.ask(servers.containers["postgres"], *data_tier.PSQL, "-Atc", "SHOW ssl") == "on"


def test_a_health_check_leaves_nothing_in_the_log(servers: Servers):
    """It runs every 10 s: what it left would displace the errors of clients."""
    for service, container in servers.containers.items():
        before = docker("logs", container).output
        assert docker("exec", container, *probe(service)).status == 0
        time.sleep(1)
        assert docker("logs", container).output == before, service


def test_the_backup_service_verifies_postgres(servers: Servers, images):
    """With its own variables and files; under a name of the certificate, and not under another one."""
    backup = MODEL["services"]["backup"]
    assert backup["environment"]["PGHOST"] in inner_tls.SINGLE
    password = secrets_store.read(servers.project, "postgres_superuser_password")
    environment = {**backup["environment"], "PGPASSWORD": password}
    secrets = [secret for secret in backup["secrets"] if "backup_s3" not in secret and "pgbackrest" not in secret]
    for host, code in ((HOST, 0), (OTHER_HOST, 2)):
        answer = docker(
            *("run", "--rm", f"--network=container:{servers.containers['postgres']}", *RESTRICTIONS, "--user=999:999"),
            *(f"--env={name}={value}" for name, value in {**environment, "PGHOST": host}.items()),
            *mounts({"secrets": secrets, "volumes": []}, servers.project.secrets),
            *("--entrypoint=psql", images["POSTGRES_IMAGE"].reference, "--no-psqlrc", "-Atc"),
            "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
        )
        assert answer.status == code, answer.output
