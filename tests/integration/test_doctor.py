"""`doctor` on a real stack, healthy and with a planted fault of each kind, and a support bundle without a marker."""

from __future__ import annotations

import base64
import json
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from ops import secrets_store
from ops.doctor.diagnosis import SOURCES
from ops.notification_secrets import OPTIONAL_SECRETS
from tests.stack import Container, Stack, docker, wait_until

QUEUE = "tests-queue-without-worker"


def findings(stack: Stack) -> list[dict[str, Any]]:
    """Return the findings of `doctor`, and check its exit code."""
    result = stack.command("doctor", "--json", check=False)
    answer = json.loads(result.stdout)["findings"]
    assert result.returncode == int(any(finding["urgency"] == "urgent" for finding in answer))
    return list(answer)


def finding(stack: Stack, object_name: str, state: str) -> dict[str, Any]:
    """Wait for a finding, and return it."""

    def matching() -> list[dict[str, Any]]:
        return [each for each in findings(stack) if each["object"] == object_name and state in each["state"]]

    return wait_until(matching, timeout=120, what=f"doctor finds {object_name}: {state}")[0]


def postgres(stack: Stack) -> Container:
    """Return the Postgres that accepts writes."""
    nodes = [node for service in ("postgres", "patroni-1", "patroni-2") for node in stack.containers(service)]
    query = ("psql", "-U", "postgres", "-Atc", "SELECT pg_is_in_recovery()")
    return next(node for node in nodes if node.execute(*query, check=False).stdout.strip() == "f")


def redis(stack: Stack, *command: str) -> str:
    """Return the answer of the single Redis."""
    script = (
        'REDISCLI_AUTH=$(cat /run/secrets/redis_operator_password) redis-cli --no-auth-warning --user operator "$@"'
    )
    return stack.containers("redis")[0].execute("sh", "-c", script, "redis-cli", *command).stdout.strip()


@contextmanager
def session(stack: Stack, sql: str) -> Iterator[None]:
    """Keep a session of Postgres open that runs a statement, for the duration of the block."""
    command = ["docker", "exec", "--interactive", postgres(stack).id, "psql", "-U", "postgres", "-d", "airflow", "-q"]
    client = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
    assert client.stdin
    client.stdin.write(f"{sql};\n")
    client.stdin.flush()
    try:
        yield
    finally:
        client.communicate()


def test_healthy_stack_has_no_urgent_finding(healthy_stack: Stack):
    # Alerts of an earlier test's fault may still fire.
    wait_until(
        lambda: not [each for each in findings(healthy_stack) if each["urgency"] == "urgent"],
        timeout=240,
        what="nothing is urgent",
    )
    read = json.loads(healthy_stack.command("doctor", "--json", check=False).stdout)["read"]
    assert read == [source.name for source in SOURCES]


def test_transaction_that_blocks_others_is_urgent_with_its_end(stack: Stack):
    statement = "CREATE TABLE IF NOT EXISTS tests_doctor (); BEGIN; LOCK TABLE tests_doctor; SELECT pg_sleep(1)"
    # The second waits for the first; a transaction that others wait for is urgent after a minute.
    with session(stack, statement), session(stack, "SELECT pg_sleep(2); SELECT count(*) FROM tests_doctor"):
        found = finding(stack, "database airflow", "blocks 1 sessions")
        assert found["urgency"] == "urgent"
        subprocess.run(["sh", "-c", found["fix"]], check=True, capture_output=True)
        wait_until(
            lambda: not [each for each in findings(stack) if "blocks" in each["state"]],
            timeout=30,
            what="the command of the finding has ended the transaction",
        )
    postgres(stack).execute("psql", "-U", "postgres", "-d", "airflow", "-c", "DROP TABLE tests_doctor")


@pytest.mark.nightly
def test_queue_without_a_worker_is_found_with_the_setting(stack: Stack):
    redis(stack, "lpush", QUEUE, "message")
    try:
        found = finding(stack, f"queue {QUEUE}", "no worker consumes it")
        assert "WORKER_QUEUES" in found["fix"]
        command = found["fix"].partition("delete the messages: ")[2]
        subprocess.run(["sh", "-c", command], check=True, capture_output=True)
        assert redis(stack, "llen", QUEUE) == "0"
    finally:
        redis(stack, "del", QUEUE)


@pytest.mark.nightly
@pytest.mark.parametrize("service", ["triggerer", "postgres"])
def test_service_that_is_down_is_urgent(healthy_stack: Stack, service: str):
    (container,) = healthy_stack.containers(service)
    subprocess.run(["docker", "stop", container.id], check=True, capture_output=True)
    try:
        found = finding(healthy_stack, service, "down")
        assert (found["urgency"], found["fix"]) == ("urgent", "./ops/stack up")
    finally:
        container.start()


# ---- support bundle ----------------------------------------------------------------------------------------

PASSWORD = "MARKERconnection/p@ss word"
VARIABLE = "MARKERvariable-of-a-team"


@pytest.fixture
def markers(stack: Stack) -> Iterator[list[str]]:
    """Store a Connection and a Variable, write them and each secret into a container's log, and yield all values."""
    connection = {"connection_id": "tests_marker", "conn_type": "http", "password": PASSWORD, "host": "h"}
    stack.api.http.post("/api/v2/connections", json=connection).raise_for_status()
    stack.api.http.post("/api/v2/variables", json={"key": "tests_marker", "value": VARIABLE}).raise_for_status()
    names = [*secrets_store.GENERATORS, *OPTIONAL_SECRETS]
    values = [stack.secret(name) for name in names if (stack.state / "secrets" / name).exists()]
    values += [PASSWORD, VARIABLE]
    lines = [f"tests {value} postgresql://u:{quote(value, safe='')}@h/d {json.dumps({'v': value})}" for value in values]
    lines += [f"Basic {base64.b64encode(f'admin:{value}'.encode()).decode()}" for value in values]
    lines.append("tests redis://:MARKERurl@redis:6379/0")
    # A container of its own, so that no secret is in the logs of the stack; a one-off counts as no instance.
    labels = {"project": stack.name, "service": "tests-marker", "oneoff": "True"}
    options = [option for key, value in labels.items() for option in ("--label", f"com.docker.compose.{key}={value}")]
    name, image = f"{stack.name}-tests-marker", stack.settings["AIRFLOW_IMAGE"]
    command = ["docker", "run", "--interactive", "--name", name, *options, "--entrypoint", "cat", image]
    subprocess.run(command, input="\n".join(lines) + "\n", text=True, check=True, stdout=subprocess.DEVNULL)
    yield [*values, "MARKERurl"]
    docker("rm", "--force", "--volumes", name)
    stack.api.http.delete("/api/v2/connections/tests_marker")
    stack.api.http.delete("/api/v2/variables/tests_marker")


def test_bundle_of_a_running_stack_has_no_marker(stack: Stack, markers: list[str], tmp_path: Path):
    path = tmp_path / "bundle.tar.gz"
    output = stack.command("support-bundle", "--output", str(path)).stdout
    assert "left out" not in output
    with tarfile.open(path) as archive:
        files = {entry.name.partition("/")[2]: archive.extractfile(entry).read().decode() for entry in archive}
    forms = {form for value in markers for form in (value, quote(value, safe=""), json.dumps(value)[1:-1])}
    forms |= {base64.b64encode(b"admin:" + value.encode()).decode()[8:-4] for value in markers}
    assert [(name, form) for name, text in files.items() for form in forms if form in text] == []
    logs = {name for name in files if name.startswith("logs/")}
    assert len(logs) == len(stack.containers(include_exited=True))
    assert files[f"logs/{stack.name}-tests-marker.log"].count("[removed]") > len(markers)
    assert json.loads(files["alerts.json"])
    assert json.loads(files["status.json"])["services"]
