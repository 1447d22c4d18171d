"""All secrets are rotated while 300 tasks run: no try is lost, no request is refused, old secrets are refused after."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from ops import data_tier, rotation_state, secrets_store, token_keys
from ops.project import ADMIN, ROOT
from ops.rotation.rotated_secrets import TABLE
from ops.services import local_url
from tests.stack import Airflow, Stack, wait_until

pytestmark = pytest.mark.nightly

TASKS = 300
SECONDS = 3600
"""Three passes over all containers of a stack, on 2 cores."""


class Requests:
    """A client of the REST API that counts its answers, in a thread."""

    def __init__(self, stack: Stack, token: str) -> None:
        self.answers: Counter[object] = Counter()
        self.has_ended = threading.Event()
        self.url, self.headers = f"{stack.airflow_url}/api/v2/dags", {"Authorization": f"Bearer {token}"}
        self.thread = threading.Thread(target=self.ask)

    def ask(self) -> None:
        while not self.has_ended.is_set():
            try:
                self.answers[httpx.get(self.url, headers=self.headers, timeout=30).status_code] += 1
            except httpx.HTTPError as error:
                self.answers[type(error).__name__] += 1
            time.sleep(0.2)

    def __enter__(self) -> Requests:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.has_ended.set()
        self.thread.join()


@pytest.fixture
def expired(healthy_stack: Stack) -> Iterator[None]:
    """Let the former keys of tokens be dropped by a second `rotate --finish`, as after a day."""
    yield
    rotation = rotation_state.read(healthy_stack.project)
    if rotation.steps:
        due = dict.fromkeys(rotation.until, 0.0)
        rotation_state.write(healthy_stack.project, rotation_state.Rotation(rotation.steps, due))
        healthy_stack.command("rotate", "--finish", timeout=SECONDS)
    # Their log-ins are refused now.
    for client in ("api", "flower"):
        healthy_stack.__dict__.pop(client, None)


def token(stack: Stack, user: str, password: str) -> str | None:
    """Return a token; None if the password is refused. FAB answers 429 to more than five log-ins in 40 s."""
    body = {"username": user, "password": password}

    def answer() -> httpx.Response | None:
        response = httpx.post(f"{stack.airflow_url}/auth/token", json=body, timeout=30)
        return None if response.status_code == 429 else response

    response = wait_until(answer, timeout=120, what="a log-in is answered", interval=10)
    return response.json()["access_token"] if response.status_code == 201 else None


def redis_accepts(stack: Stack, user: str, password: str) -> bool:
    node = stack.containers("redis")[0]
    log_in = "read -r REDISCLI_AUTH; export REDISCLI_AUTH; exec redis-cli --no-auth-warning"
    script = f"{log_in} --user {user} -h 127.0.0.1 ping"
    return data_tier.execute(node.id, "sh", "-c", script, stdin=f"{password}\n").stdout.strip() == "PONG"


def postgres_accepts(stack: Stack, role: str, password: str) -> bool:
    database = {"monitoring": "postgres"}.get(role, role)
    # Not by 127.0.0.1, which the image lets in without a password.
    log_in = "read -r PGPASSWORD; export PGPASSWORD; exec psql -X -h $(hostname)"
    script = f"{log_in} -U {role} -d {database} -Atc 'SELECT 1'"
    node = stack.containers("postgres")[0]
    return data_tier.execute(node.id, "sh", "-c", script, stdin=f"{password}\n").returncode == 0


def accepted(stack: Stack, values: dict[str, str]) -> set[str]:
    """Return the secrets of which the stack accepts these values."""
    names = {
        name
        for name, secret in TABLE.items()
        if (secret.redis_user and redis_accepts(stack, secret.redis_user, values[name]))
        or (secret.role and postgres_accepts(stack, secret.role, values[name]))
    }
    users = (ADMIN, "monitoring")
    names |= {name for user in users if token(stack, user, values[name := f"airflow_{user}_password"])}
    flower = httpx.get(local_url(stack.settings, "flower"), auth=(ADMIN, values["flower_password"]), timeout=30)
    if flower.status_code == 200:
        names.add("flower_password")
    keys = stack.containers("scheduler")[0].execute("cat", "/run/secrets/fernet_key").stdout.strip().split(",")
    if values["fernet_key"] in keys:
        names.add("fernet_key")
    return names | {name for name in token_keys.TRUSTED if is_trusted(stack, name, values[name])}


def is_trusted(stack: Stack, name: str, key: str) -> bool:
    service = "execution-api" if name == token_keys.TASKS else "api-server"
    published = stack.containers(service)[0].execute("cat", f"/run/secrets/{token_keys.TRUSTED[name]}").stdout
    return token_keys.public_key(key)["kid"] in {each["kid"] for each in json.loads(published)["keys"]}


def test_all_secrets_rotate_under_load_and_old_ones_are_refused(healthy_stack: Stack, expired: None):
    stack = healthy_stack
    before = secrets_store.generated_values(stack.project)
    held = token(stack, ADMIN, before["airflow_admin_password"])
    assert held
    client = httpx.Client(
        base_url=f"{stack.airflow_url}/api/v2", headers={"Authorization": f"Bearer {held}"}, timeout=30
    )
    assert client.post("/variables", json={"key": "rotation", "value": "kept"}).status_code == 201
    run = stack.api.trigger("load", tasks=TASKS, seconds=45)
    wait_until(
        lambda: any(ti["state"] == "running" for ti in stack.api.task_instances("load", run, "work")),
        timeout=120,
        what="a task runs",
    )
    with Requests(stack, held) as requests:
        stack.command("rotate", "--all", timeout=SECONDS)
    after = secrets_store.generated_values(stack.project)
    assert {name for name in TABLE if before[name] == after[name]} == set()
    api: Airflow = stack.log_in(ADMIN, after["airflow_admin_password"])
    assert api.wait_for_run("load", run, timeout=1800) == "success"
    tries = [ti["try_number"] for ti in api.task_instances("load", run, "work")]
    assert tries == [1] * TASKS
    assert set(requests.answers) == {200}, requests.answers
    waiting = set(token_keys.TRUSTED)
    assert accepted(stack, after) == set(TABLE)
    assert accepted(stack, before) == waiting, "tokens of the former keys are valid until they expire"
    assert rotation_state.read(stack.project).steps == dict.fromkeys(waiting, "wait")
    ages = {age["name"]: age["days"] for age in json.loads(stack.command("status", "--json").stdout)["secrets"]}
    assert all(ages[name] < 1 for name in TABLE)

    rotation = rotation_state.read(stack.project)
    due = rotation_state.Rotation(rotation.steps, dict.fromkeys(rotation.until, 0.0))
    rotation_state.write(stack.project, due)
    stack.command("rotate", "--finish", timeout=SECONDS)
    assert accepted(stack, before) == set()
    assert client.get("/dags").status_code == 401
    again = stack.log_in(ADMIN, after["airflow_admin_password"])
    assert again.get("/api/v2/variables/rotation")["value"] == "kept"
    containers = {container.id for container in stack.containers()}
    stack.command("up")
    assert {container.id for container in stack.containers()} == containers, "a rotation leaves nothing for up to do"


def test_a_killed_rotation_is_finished_by_the_next_one(healthy_stack: Stack, expired: None):
    stack = healthy_stack
    former = stack.secret("postgres_airflow_password")
    run = stack.api.trigger("load", tasks=30, seconds=5)
    kill_rotation(stack, "postgres_airflow_password")
    assert rotation_state.read(stack.project).steps
    stack.command("rotate", "--finish", timeout=SECONDS)
    assert stack.secret("postgres_airflow_password") != former
    assert not postgres_accepts(stack, "airflow", former)
    assert stack.api.wait_for_run("load", run, timeout=600) == "success"
    assert [ti["try_number"] for ti in stack.api.task_instances("load", run, "work")] == [1] * 30


def kill_rotation(stack: Stack, name: str) -> None:
    """Kill a rotation while it replaces containers."""
    before = {container.id for container in stack.containers()}
    environment = {**os.environ, "STACK_STATE_DIR": str(stack.state)}
    with subprocess.Popen([ROOT / "ops/stack", "rotate", name], env=environment, start_new_session=True) as child:
        wait_until(
            lambda: len(before - {container.id for container in stack.containers()}) > 1,
            timeout=300,
            what="containers are being replaced",
        )
        os.killpg(child.pid, signal.SIGKILL)
