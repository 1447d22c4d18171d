"""Real servers accept the old and the new secret during a rotation, and only the new one after it."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import psycopg2
import pytest
import redis

from ops import compose, postgres_roles, rotation_state, secrets_store, settings_file
from ops.compose import Instance
from ops.project import ROOT, Project
from ops.rotation import servers, steps
from ops.rotation.rotated_secrets import TABLE
from ops.rotation.servers import Servers
from ops.secrets_store import findings_door
from tests.docker_session import session_name
from tests.images.conftest import RESTRICTIONS, docker
from tests.images.doors import ALERTMANAGER_PASSWORD, FINDINGS, gateway_with
from tests.images.test_data_images import DATABASE_USER, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from ops.rotation_state import InUse


class OneServer(Servers):
    """The executor, with one server and clients that are in this process."""

    def renew(self, names: Collection[str]) -> None:
        """Check that the clients of before and of after are accepted, in place of containers that are replaced."""
        self.check(names)
        texts = secrets_store.mounted_files(self.project, self.settings)
        self.write(texts)
        if any(TABLE[name].redis_user for name in names):
            self.apply_to_redis(texts)
        self.check(names)

    def check(self, names: Collection[str]) -> None:
        raise NotImplementedError

    def write(self, texts: Mapping[str, str]) -> None:
        """Write mounted files in place."""

    def in_use(self) -> InUse:
        return rotation_state.in_use(self.project, secrets_store.generated_values(self.project))


@pytest.fixture
def made(tmp_path) -> Project:
    project = Project(ROOT, tmp_path / "state")
    secrets_store.generate(project)
    return project


@pytest.fixture
def runs(monkeypatch) -> Callable[[str, str], None]:
    """Let a container count as the only one of a service."""

    def instances(service: str, container: str) -> None:
        instance = Instance(id=container, state="running", health="healthy", created=0.0)
        known = compose.instances("") if service.startswith("sentinel") else {}
        monkeypatch.setattr(compose, "instances", lambda _: {**known, service: [instance]})

    monkeypatch.setattr(compose, "instances", lambda _: {})
    return instances


# ---- Postgres


@dataclass(frozen=True)
class Database:
    """A Postgres as the profile `data` creates it, with the passwords of a project."""

    project: Project
    container: str
    port: int


@pytest.fixture(scope="module")
def database(images, tmp_path_factory) -> Iterator[Database]:
    """One for all roles, each of which one test rotates."""
    folder = tmp_path_factory.mktemp("postgres")
    project = Project(ROOT, folder / "state")
    secrets_store.generate(project)
    files = {name: folder / name for name in postgres_roles.PASSWORDS.values() if name != "postgres_superuser_password"}
    for name, file in files.items():
        file.write_text(secrets_store.read(project, name))
    for path in (*files.values(), folder, *folder.parents):
        if path.stat().st_uid == os.getuid() and str(path).startswith("/tmp/"):
            path.chmod(path.stat().st_mode | (0o044 if path.is_file() else 0o055))
    script = ROOT / "compose/postgres/create-databases.sh"
    container = f"{session_name()}-{uuid.uuid4().hex[:8]}"
    started = docker(
        *("run", "--detach", "--name", container, *RESTRICTIONS, "--publish", "127.0.0.1::5432"),
        *("--user", DATABASE_USER, "--tmpfs", "/tmp"),
        *("--tmpfs", "/var/run/postgresql:uid=999,gid=999,mode=3775", "--tmpfs", "/var/lib/postgresql/data:uid=999"),
        *("--env", "POSTGRES_PASSWORD=postgres"),
        *("--volume", f"{script}:/docker-entrypoint-initdb.d/{script.name}:ro"),
        *(option for name, file in files.items() for option in ("--volume", f"{file}:/run/secrets/{name}:ro")),
        images["POSTGRES_IMAGE"].reference,
    )
    try:
        assert started.status == 0, started.output
        wait_for(container, "pg_isready", "-q", "-h", "127.0.0.1")
        port = docker("port", container, "5432").output.strip().rpartition(":")[2]
        yield Database(project, container, int(port))
    finally:
        docker("rm", "--force", "--volumes", container)


DATABASES = {"airflow": "airflow", "celery_results": "celery_results", "monitoring": "postgres"}


def session(port: int, role: str, user: str, password: str) -> psycopg2.extensions.connection:
    return psycopg2.connect(host="127.0.0.1", port=port, dbname=DATABASES[role], user=user, password=password)


def value(connection: psycopg2.extensions.connection, query: str) -> object:
    with connection.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()
        assert row is not None
        return row[0]


@pytest.mark.parametrize("role", sorted(DATABASES))
def test_role_has_a_valid_log_in_at_each_moment(database, runs, role):
    made, postgres_port = database.project, database.port
    runs("postgres", database.container)
    name = postgres_roles.PASSWORDS[role]
    former = secrets_store.read(made, name)
    used: list[str] = []
    owned: list[object] = []

    class OnePostgres(OneServer):
        def check(self, names: Collection[str]) -> None:
            user, password = postgres_roles.user_and_password(role, self.in_use())
            used.append(user)
            with session(postgres_port, role, user, password) as connection:
                assert value(connection, "SELECT current_user") == role
                assert value(connection, "SHOW statement_timeout") == "7s"
                if role == "airflow":
                    value(connection, f"CREATE TABLE made_{len(used)} (at int); SELECT 1")
                    owner = "SELECT tableowner FROM pg_tables WHERE tablename LIKE 'made%' LIMIT 1"
                    owned.append(value(connection, owner))

    executor = OnePostgres(made, settings_file.read(made), lambda _: None)
    executor.query([f"ALTER ROLE {role} SET statement_timeout = '7s';\n"])
    held = session(postgres_port, role, role, former)
    steps.begin(made, [name])
    steps.finish(made, executor, lambda _: None)
    new = secrets_store.read(made, name)
    assert {role, postgres_roles.interim(role)} == set(used)
    assert set(owned) <= {role}
    for user, password in ((role, former), (postgres_roles.interim(role), new), (postgres_roles.interim(role), former)):
        with pytest.raises(psycopg2.OperationalError):
            session(postgres_port, role, user, password)
    assert value(session(postgres_port, role, role, new), "SELECT 1") == 1
    assert value(held, "SELECT 1") == 1, "a session of before goes on"


# ---- Redis and Sentinel


@pytest.fixture
def redis_files(made, tmp_path, readable) -> dict[str, Path]:
    """The mounted files of Redis and Sentinel, which a test writes in place."""
    texts = secrets_store.mounted_files(made, settings_file.read(made))
    return {path: readable(path.rpartition("/")[2], text) for path, text in texts.items() if path.startswith("redis/")}


@pytest.fixture
def nodes(images, start, redis_files, runs) -> Iterator[dict[str, str]]:
    """A Redis and a Sentinel that watches it, with the configuration of the compose files."""
    network = f"{session_name()}-{uuid.uuid4().hex[:8]}"
    assert docker("network", "create", network).status == 0
    mounts = [option for file in redis_files.values() for option in ("--volume", f"{file}:/run/secrets/{file.name}:ro")]
    common = ("--network", network, "--user", DATABASE_USER, "--tmpfs", "/tmp", "--tmpfs", "/data:uid=999", *mounts)
    reference = images["REDIS_IMAGE"].reference
    node = start(
        *(*common, "--publish", "127.0.0.1::6379", "--network-alias", "redis-1"),
        *("--volume", f"{ROOT}/compose/redis:/usr/local/etc/redis:ro", "--entrypoint", "redis-server"),
        *(reference, "/usr/local/etc/redis/redis.conf"),
    )
    wait_for(node, "sh", "/usr/local/etc/redis/check-writable-or-in-sync.sh")
    sentinel = start(
        *(*common, "--network-alias", "sentinel-1"),
        *("--volume", f"{ROOT}/compose/sentinel:/usr/local/etc/sentinel:ro", "--entrypoint", "bash"),
        *(reference, "/usr/local/etc/sentinel/start.sh", "sentinel-1"),
    )
    runs("redis", node)
    runs("sentinel-1", sentinel)
    yield {"redis": node, "sentinel-1": sentinel}
    docker("rm", "--force", "--volumes", node, sentinel)
    docker("network", "rm", network)


REDIS_SECRETS = tuple(name for name, secret in TABLE.items() if secret.redis_user)


def log_in(node: str, user: str, password: str) -> bool:
    """Return whether a Redis accepts a user's password."""
    port = int(docker("port", node, "6379").output.strip().rpartition(":")[2])
    try:
        return bool(redis.Redis(port=port, username=user, password=password).ping())
    except redis.AuthenticationError:
        return False


def sentinel_sees_the_primary(sentinel: str) -> bool:
    shown = docker("exec", sentinel, *servers.OPERATOR, "-p", "26379", "sentinel", "master", "airflow").output.split()
    return shown[shown.index("flags") + 1] == "master"


def test_redis_users_have_a_valid_password_at_each_moment(nodes, redis_files, made):
    before = {name: secrets_store.read(made, name) for name in REDIS_SECRETS}
    health = ("sh", "/usr/local/etc/redis/check-writable-or-in-sync.sh")

    class OneRedis(OneServer):
        def write(self, texts: Mapping[str, str]) -> None:
            for path, file in redis_files.items():
                file.write_text(texts[path])

        def check(self, names: Collection[str]) -> None:
            for name in names:
                assert log_in(nodes["redis"], TABLE[name].redis_user, self.in_use().current[name]), name
            assert docker("exec", nodes["redis"], *health).status == 0

    created = docker("inspect", "--format={{.State.StartedAt}}", *nodes.values()).output
    steps.begin(made, REDIS_SECRETS)
    steps.finish(made, OneRedis(made, settings_file.read(made), lambda _: None), lambda _: None)
    assert docker("inspect", "--format={{.State.StartedAt}}", *nodes.values()).output == created, "nothing restarted"
    after = {name: secrets_store.read(made, name) for name in REDIS_SECRETS}

    def only_the_new_passwords_work() -> None:
        for name in REDIS_SECRETS:
            user = TABLE[name].redis_user
            assert not log_in(nodes["redis"], user, before[name]), name
            assert log_in(nodes["redis"], user, after[name]), name

    only_the_new_passwords_work()
    assert sentinel_sees_the_primary(nodes["sentinel-1"])
    assert docker("restart", *nodes.values()).status == 0
    wait_for(nodes["redis"], *health)
    time.sleep(6)  # down-after-milliseconds: without a log-in the primary would count as down
    only_the_new_passwords_work()
    assert sentinel_sees_the_primary(nodes["sentinel-1"])


# ---- the gateway


def test_a_reload_of_the_gateway_refuses_no_request(images):
    answers: Counter[object] = Counter()
    new = "the DAG's next password"
    with gateway_with(images, {}) as gateway:
        has_ended = threading.Event()

        def ask(port: int, path: str) -> None:
            while not has_ended.is_set():
                # A client that loads the authorities, which limits the rate of requests.
                with httpx.Client(base_url=f"http://127.0.0.1:{gateway.address[port]}", timeout=20) as client:
                    for _ in range(3):
                        answers[client.get(path).status_code] += 1

        def accepts(password: str) -> bool:
            with gateway.client(8081) as client:
                return client.get("/alertmanager-1/api/v2/alerts", auth=(FINDINGS[0], password)).status_code == 200

        def becomes(*passwords: str) -> None:
            gateway.passwords.write_text(findings_door(passwords, ALERTMANAGER_PASSWORD))
            servers.reload_door(gateway.name)
            deadline = time.monotonic() + 30
            while [accepts(password) for password in (FINDINGS[1], new)] != [
                password in passwords for password in (FINDINGS[1], new)
            ]:
                assert time.monotonic() < deadline
                time.sleep(0.2)

        asking = [threading.Thread(target=ask, args=each) for each in ((8080, "/x"), (8081, "/execution/x")) * 2]
        for thread in asking:
            thread.start()
        before = docker("logs", gateway.name).output
        becomes(FINDINGS[1], new)
        becomes(new)
        log = docker("logs", gateway.name).output.removeprefix(before)
        has_ended.set()
        for thread in asking:
            thread.join()
    assert set(answers) == {200}
    # Under high load DNS answers late: a process that starts without addresses refuses requests until then.
    assert "changed from '(none)'" not in log
