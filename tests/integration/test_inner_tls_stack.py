"""A whole stack with TLS=on: nothing on the links to Postgres and Redis is in clear while a pipeline runs."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from ops import data_tier, secrets_store
from ops.project import PIPELINE
from tests.packet_capture import captured
from tests.stack import TERMINAL, Container, Stack, wait_until

pytestmark = pytest.mark.nightly  # two `down` and two `up`

PORTS = {"postgres": 5432, "redis": 6379}
CONNECTIONS = (
    "SELECT json_agg(json_build_array(usename, client_addr, ssl)) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) "
    "WHERE client_addr IS NOT NULL"
)
ROLES = {"airflow", "celery_results", "monitoring"}
"""Of which a running stack always has connections."""
IN_CLEAR = """
import socket, sys
host, port, text = sys.argv[1:]
with socket.create_connection((host, int(port)), timeout=10) as link:
    link.sendall(b"PING %s\\r\\n" % text.encode())
    try:
        print(link.recv(64).hex())
    except OSError:
        print()
"""


def set_tls(stack: Stack, settings: str) -> None:
    """Apply settings with another TLS, as the README has it."""
    stack.command("down")
    stack.project.env_file.write_text(settings)
    stack.command("up")


@pytest.fixture(scope="module")
def encrypted(stack: Stack, request: pytest.FixtureRequest) -> Iterator[Stack]:
    """Provide the stack with TLS=on, and without it afterwards."""
    if request.config.getoption("--stack") == "running":
        pytest.skip("changes the settings of the stack")
    before = stack.project.env_file.read_text()
    try:
        set_tls(stack, f"{before}TLS=on\n")
        yield stack
    finally:
        set_tls(stack, before)


def connections(postgres: Container) -> set[tuple[str, str, bool]]:
    """Return the role, address and encryption of each connection by TCP."""
    answer = data_tier.ask(postgres.id, *data_tier.PSQL, "-d", "postgres", "-Atc", CONNECTIONS)
    return {(role, address, is_encrypted) for role, address, is_encrypted in json.loads(answer or "[]")}


def send_in_clear(stack: Stack, host: str, text: str) -> bytes:
    """Return the answer of a server to a line without TLS, from a container that may reach it."""
    scheduler = stack.containers("scheduler")[0]
    answer = scheduler.execute("python", "-S", "-c", IN_CLEAR, host, str(PORTS[host]), text)
    return bytes.fromhex(answer.stdout.strip())


def test_a_pipeline_run_sends_nothing_in_clear(encrypted: Stack):
    stack = encrypted
    values = secrets_store.generated_values(stack.project)
    passwords = {name: text for name, text in values.items() if name.startswith(("postgres_", "redis_"))}
    payload, control = (f"{kind}-{uuid.uuid4().hex}" for kind in ("payload", "control"))
    # SQL, Redis commands, and what a task's message has in base64.
    texts = ("INSERT INTO", "SELECT ", "task_instance", "celery_taskmeta", "_kombu.binding", "unacked", PIPELINE)
    markers = {**passwords, **{text: text for text in texts}, "payload": payload, "control": control}
    servers = {name: stack.containers(name)[0] for name in PORTS}
    seen: set[tuple[str, str, bool]] = set()
    with ExitStack() as until_ended:
        links = {
            name: until_ended.enter_context(captured(server, PORTS[name], stack.settings["AIRFLOW_IMAGE"], markers))
            for name, server in servers.items()
        }
        run = stack.api.trigger(PIPELINE, marker=payload)
        deadline = time.monotonic() + 600
        while (state := stack.api.run_state(PIPELINE, run)) not in TERMINAL and time.monotonic() < deadline:
            seen |= connections(servers["postgres"])
            time.sleep(1)
        assert state == "success"
        answers = {name: send_in_clear(stack, name, control) for name in PORTS}
    assert {each for each in seen if not each[2]} == set()
    assert {role for role, _, _ in seen} >= ROLES
    # Its plain port would answer with an error of a line that is not authenticated.
    assert not answers["redis"].startswith((b"-", b"+"))
    assert (data_tier.ask_redis(servers["redis"].id, "config", "get", "port") or "").split() == ["port", "0"]
    for name, link in links.items():
        # What was sent in clear on purpose was found: the capture sees the link.
        assert (name, sorted(link.found), link.lost) == (name, ["control"], 0)
        assert link.records > 100, link


def test_a_change_of_tls_is_refused_while_servers_run(encrypted: Stack):
    before = encrypted.project.env_file.read_text()
    containers = {container.id for container in encrypted.containers()}
    try:
        encrypted.project.env_file.write_text(before.replace("\nTLS=on\n", "\nTLS=off\n"))
        refused = encrypted.command("up", check=False)
    finally:
        encrypted.project.env_file.write_text(before)
    assert refused.returncode != 0
    assert "cannot change TLS while Postgres and Redis run" in refused.stdout
    assert {container.id for container in encrypted.containers()} == containers


def test_a_certificate_is_renewed_without_a_lost_run(encrypted: Stack):
    folder = encrypted.state / "secrets" / "tls"
    for name in ("postgres", "redis", "airflow"):
        path = folder / f"{name}.pem"
        former = path.read_text()
        path.unlink()
        run = encrypted.api.trigger("load", tasks=20, seconds=3)
        encrypted.command("up")
        assert path.read_text() != former
        assert encrypted.api.wait_for_run("load", run, timeout=300) == "success"
        wait_until(encrypted.ready, timeout=240, what="every service is healthy")
