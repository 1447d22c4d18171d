"""Each client of Redis can do its work with its own user, and nothing else; real clients, in a real Redis."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import redis
from celery import Celery
from celery.events import EventReceiver

from ops import redis_users, secrets_store, settings_file
from ops.project import ROOT, Project
from ops.rotation_state import InUse
from tests.images.conftest import docker
from tests.images.test_data_images import DATABASE_USER, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WORKER = """
import os
import time
from celery import Celery
from airflow_ha.queues import announcement
settings = {
    "broker_url": os.environ["BROKER"], "task_acks_late": True, "worker_prefetch_multiplier": 2,
    "task_default_queue": "default", "task_ignore_result": True, "worker_send_task_events": True,
}
app = Celery("worker", config_source=settings)
app.steps["consumer"].add(announcement.Announcement)

@app.task(name="wait")
def wait(seconds):
    time.sleep(seconds)
"""

DENIED = {
    "worker": [
        "GET secret", "CONFIG GET requirepass", "EVAL return(1) 0", "SCRIPT LOAD return(1)", "FLUSHALL", "DEL default",
        "LRANGE default 0 -1", "HGETALL unacked", "HKEYS unacked", "ZRANGE unacked_index 0 -1", "KEYS *", "SCAN 0",
        "PUBLISH /0.celery.pidbox x", "PSUBSCRIBE *", "MONITOR", "ACL LIST", "CLIENT LIST", "SLOWLOG GET", "SHUTDOWN",
        "REPLICAOF NO ONE", "ZREMRANGEBYSCORE unacked_index -inf inf",
    ],
    "scheduler": ["BRPOP default 1", "HGET unacked x", "EVAL return(1) 0", "CONFIG GET *", "FLUSHALL", "PSUBSCRIBE *"],
    "flower": ["LPUSH default x", "BRPOP default 1", "LRANGE default 0 -1", "HGETALL unacked", "EVAL return(1) 0"],
    "exporter": ["CONFIG GET *", "LRANGE default 0 -1", "CLIENT LIST", "EVAL return(1) 0", "SET x y", "LLEN other"],
    "health": ["GET unacked_mutex", "SET other x", "CONFIG GET *", "EVAL return(1) 0"],
    "replica": ["GET unacked_mutex", "CONFIG GET *", "KEYS *"],
    "sentinel": ["GET unacked_mutex", "CONFIG GET *", "KEYS *", "CONFIG SET dir /tmp"],
}  # fmt: skip
"""What each user may not do."""


@dataclass(frozen=True)
class Server:
    """A running Redis with the stack's users; the password of each is the name of its secret."""

    container: str
    crash: Callable[[], None]

    @property
    def port(self) -> int:
        """The published port, which changes when the container starts again."""
        return int(docker("port", self.container, "6379").output.strip().rpartition(":")[2])

    def client(self, user: str) -> redis.Redis:
        return redis.Redis(port=self.port, username=user, password=redis_users.secret_name(user), decode_responses=True)

    def app(self, user: str, **settings: Any) -> Celery:
        url = f"redis://{user}:{redis_users.secret_name(user)}@127.0.0.1:{self.port}/0"
        return Celery(set_as_current=False, config_source={"broker_url": url, **settings})

    def denials(self) -> list[tuple[str, str]]:
        """Return the user and the command or key of each denied command."""
        log: Any = self.client("operator").acl_log()
        return [(entry["username"], entry["object"]) for entry in log]


@pytest.fixture
def server(images, start, readable, tmp_path) -> Iterator[Server]:
    """A Redis as the profile `data` runs it, after a first health check."""
    project, secrets = Project(ROOT, tmp_path), {name: name for name in secrets_store.GENERATORS}
    settings = settings_file.read(project) | {"COMPOSE_PROFILES": "data"}
    mounted = redis_users.mounted_files(project, settings, InUse(secrets))
    files = [readable(path.rpartition("/")[2], text) for path, text in mounted.items() if path.startswith("redis/")]
    volume = tmp_path / "data"
    volume.mkdir(mode=0o777)
    volume.chmod(0o777)
    container = start(
        *("--publish", "127.0.0.1::6379", "--user", DATABASE_USER, "--volume", f"{volume}:/data", "--tmpfs", "/tmp"),
        *(option for file in files for option in ("--volume", f"{file}:/run/secrets/{file.name}:ro")),
        *("--volume", f"{ROOT}/compose/redis:/usr/local/etc/redis:ro", "--entrypoint", "redis-server"),
        *(images["REDIS_IMAGE"].reference, "/usr/local/etc/redis/redis.conf"),
    )
    check = ("sh", "/usr/local/etc/redis/check-writable-or-in-sync.sh")
    wait_for(container, *check)

    def crash() -> None:
        docker("kill", container)
        docker("start", container)
        wait_for(container, *check)

    yield Server(container, crash)
    docker("exec", container, "sh", "-c", "rm -r /data/*")


@pytest.fixture
def worker(server, tmp_path) -> Iterator[subprocess.Popen[str]]:
    """A Celery worker with one slot."""
    (tmp_path / "worker_app.py").write_text(WORKER)
    url = f"redis://worker:{redis_users.secret_name('worker')}@127.0.0.1:{server.port}/0"
    paths = f"{tmp_path}:{ROOT}/src:{os.environ.get('PYTHONPATH', '')}"
    arguments = ("-A", "worker_app", "worker", "-c", "1", "--without-mingle", "--without-gossip", "-n", "worker@tests")
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", *arguments],
        env={**os.environ, "BROKER": url, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    yield process
    process.kill()
    print(process.communicate()[0])


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"the condition is false after {seconds} s"
        time.sleep(0.1)
    return value


def test_celery_works_with_the_users_of_its_clients(server, worker):
    operator = server.client("operator")
    scheduler = server.app("scheduler")
    flower = server.app("flower", broker_transport_options={"ack_emulation": False})
    events: list[str] = []

    def receive() -> None:
        # Redis ends before this thread.
        with suppress(redis.exceptions.ConnectionError), flower.connection() as connection:
            receiver = EventReceiver(connection, {"*": lambda event: events.append(event["type"])}, app=flower)
            receiver.capture(limit=None, timeout=None, wakeup=False)

    threading.Thread(target=receive, daemon=True).start()
    until(lambda: operator.zrange("airflow-ha.workers", 0, -1))
    scheduler.send_task("wait", args=[0.1], queue="default")
    until(lambda: {"task-received", "task-succeeded"} <= set(events))

    # Flower sends commands and reads the answers; a scheduler revokes a task.
    inspect = flower.control.inspect(timeout=5)
    assert inspect.ping() == {"worker@tests": {"ok": "pong"}}
    assert [queue["name"] for queue in inspect.active_queues()["worker@tests"]] == ["default"]
    assert server.client("flower").llen("default") == 0
    scheduler.control.revoke("gone")
    until(lambda: "gone" in flower.control.inspect(timeout=5).revoked()["worker@tests"])

    # A worker that stops puts its message back.
    for _ in range(3):
        scheduler.send_task("wait", args=[60], queue="default")
    until(lambda: events.count("task-started") == 2 and operator.hlen("unacked") == 2)
    worker.send_signal(signal.SIGQUIT)
    worker.wait(timeout=60)
    assert operator.llen("default") >= 2
    assert server.denials() == []


def test_each_user_is_denied_what_it_does_not_need(server):
    server.client("operator").lpush("default", "a message")
    allowed = []
    for user, commands in DENIED.items():
        for command in commands:
            try:
                server.client(user).execute_command(*command.split())
                allowed.append(f"{user}: {command}")
            except redis.exceptions.NoPermissionError:
                pass
    assert allowed == []


def test_nobody_may_use_redis_without_a_user(server):
    for login in ({}, {"password": "redis_password"}, {"username": "default", "password": ""}):
        with pytest.raises((redis.exceptions.AuthenticationError, redis.exceptions.ResponseError)):
            redis.Redis(port=server.port, **login).ping()


def test_a_crash_keeps_queues_and_transactions(server):
    """Redis replays the transactions of its file as the user `default`."""
    worker = server.client("worker")
    server.client("scheduler").lpush("default", "a message")
    with worker.pipeline() as pipe:
        pipe.zadd("unacked_index", {"tag": 1}).hset("unacked", "tag", "another").execute()
    server.crash()
    operator = server.client("operator")
    assert operator.lrange("default", 0, -1) == ["a message"]
    assert (operator.hgetall("unacked"), operator.zcard("unacked_index")) == ({"tag": "another"}, 1)
    assert server.denials() == []


def test_the_exporter_reads_its_metrics(server, images, start, readable):
    address = "127.0.0.1:6379"
    passwords = readable("passwords.json", f'{{"redis://exporter@{address}": "redis_exporter_password"}}')
    exporter = start(
        *("--network", f"container:{server.container}", "--user", "59000:59000", "--tmpfs", "/tmp"),
        *("--volume", f"{passwords}:/passwords.json:ro", "--entrypoint", "/redis_exporter"),
        *(images["REDIS_EXPORTER_IMAGE"].reference, "--redis.user=exporter", "--redis.password-file=/passwords.json"),
        *(f"--redis.addr=redis://{address}", "--config-command=-", "--check-single-keys=db0=default"),
    )
    server.client("scheduler").lpush("default", "a message")
    metrics = wait_for(exporter, "wget", "-q", "-O", "-", "http://127.0.0.1:9121/metrics").output
    assert "\nredis_up 1\n" in metrics
    assert '\nredis_key_size{db="db0",key="default"} 1\n' in metrics
    for name in ("aof_enabled", "connected_slaves", "instance_info", "memory_max_bytes", "rejected_connections_total"):
        assert f"\nredis_{name}" in metrics
    assert server.denials() == []
