"""`rotate` refuses bad input before it changes anything, and applies each change to Redis, the doors and Postgres."""

from __future__ import annotations

import json
import subprocess

import pytest

from ops import compose, data_tier, rolling, rotation_state, secrets_store, settings_file, token_keys
from ops.compose import Instance
from ops.errors import StackError
from ops.lock import stack_lock
from ops.rotation import before, rotated_secrets, steps
from ops.rotation.servers import Servers
from tests.unit.stack_fakes import container, run

MODEL = {"name": "airflow-ha", "services": {"redis": {}, "worker": {}}, "secrets": {}}


@pytest.fixture
def made(project):
    secrets_store.generate(project)
    project.env_file.write_text("AIRFLOW_IMAGE=airflow\n")
    return project


@pytest.fixture
def running(made, docker):
    """A healthy stack of two services."""
    docker.answer("config --format json", out=json.dumps(MODEL))
    docker.answer_containers(container("redis", 1, health="healthy"), container("worker", 2, health="healthy"))
    return docker


def changes(docker) -> list[list[str]]:
    """Return the docker commands that change something."""
    reads = ("ps", "inspect", "version", "info", "images")
    return [
        call for call in docker.calls() if call[0] not in reads and "config" not in call and "--dry-run" not in call
    ]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["no_such_secret"], "no such secret"),
        (["backup_passphrase"], "every backup"),
        (["fernet_key", "--all"], "--all"),
    ],
)
def test_bad_input_is_refused_before_any_change(made, running, arguments, reason):
    values = secrets_store.generated_values(made)
    result = run("rotate", *arguments)
    assert (result.returncode, reason in result.stderr) == (2, True), result.stderr
    assert secrets_store.generated_values(made) == values
    assert changes(running) == []
    assert not rotation_state.folder(made).exists()


def test_stopped_stack_is_refused(made, docker):
    result = run("rotate", "fernet_key")
    assert (result.returncode, changes(docker)) == (2, [])
    assert "does not run" in result.stderr


def test_unhealthy_stack_is_refused(made, docker):
    docker.answer("config --format json", out=json.dumps(MODEL))
    docker.answer_containers(container("redis", 1, health="unhealthy"), container("worker", 2, health="healthy"))
    result = run("rotate", "fernet_key")
    assert (result.returncode, changes(docker)) == (2, [])
    assert "redis" in result.stderr


def test_interrupted_rotation_starts_what_it_stopped(made, docker, monkeypatch):
    docker.answer("config --format json", out=json.dumps(MODEL))
    docker.answer_containers(container("redis", 1, health="healthy"), container("worker", 2, state="exited"))
    started = []
    monkeypatch.setattr(rolling, "start_missing", lambda _, services, __: started.extend(services))
    before.start_interrupted(made, print)
    assert started == []
    rotation_state.keep_values(made, "fernet_key", "a", "b")
    rotation_state.write(made, rotation_state.Rotation({"fernet_key": "admit"}))
    before.start_interrupted(made, print)
    assert started == ["worker"]


def test_stack_that_differs_from_its_settings_is_refused(made, running):
    running.answer("--dry-run", out="Container airflow-ha-worker-1 Recreate\n")
    running.answers = {"--dry-run": running.answers.pop("--dry-run"), **running.answers}
    running.answer("unused")
    result = run("rotate", "fernet_key")
    assert (result.returncode, changes(running)) == (2, [])
    assert "./ops/stack up" in result.stderr


def test_second_rotation_is_refused_at_once(made, running):
    with stack_lock(made, "rotate", lambda _: None):
        result = run("rotate", "fernet_key")
    assert result.returncode == 2
    assert "lock" in result.stderr


@pytest.mark.parametrize("arguments", [[], ["--list"]])
def test_without_a_name_every_secret_is_shown_with_its_age(made, arguments):
    result = run("rotate", *arguments)
    assert result.returncode == 0, result.stderr
    assert all(name in result.stdout for name in secrets_store.GENERATORS)
    assert not any(text in result.stdout for text in secrets_store.generated_values(made).values())


def test_all_leaves_out_what_is_external(made):
    settings = settings_file.read(made)
    own = rotated_secrets.chosen(settings, [], all_of_them=True)
    external = rotated_secrets.chosen(settings | {"COMPOSE_PROFILES": "flower"}, [], all_of_them=True)
    assert set(own) == set(rotated_secrets.TABLE)
    assert {"redis_password", "postgres_airflow_password"}.isdisjoint(external)
    assert {"fernet_key", token_keys.TASKS} <= set(external)
    with pytest.raises(StackError, match="external"):
        rotated_secrets.chosen(settings | {"COMPOSE_PROFILES": "flower"}, ["redis_password"], all_of_them=False)


def test_key_whose_former_one_waits_is_not_rotated_again(made, running):
    rotation_state.keep_values(made, token_keys.USERS, "a", "b")
    waiting = rotation_state.Rotation({token_keys.USERS: "wait"}, {token_keys.USERS: 2e12})
    rotation_state.write(made, waiting)
    with pytest.raises(StackError, match="waits"):
        before.refuse_new(made, settings_file.read(made), [token_keys.USERS])
    assert rotation_state.read(made) == waiting


def test_another_edited_file_is_refused(made, running):
    rotation_state.note_used(made, secrets_store.generated_values(made))
    (made.secrets / "redis_password").write_text("edited\n")
    with pytest.raises(StackError, match="redis_password"):
        before.refuse_new(made, settings_file.read(made), ["fernet_key"])
    before.refuse_new(made, settings_file.read(made), ["redis_password"])


class Executed:
    """In place of data_tier.execute: the commands in containers, with their standard input."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.commands: list[tuple[tuple[str, ...], str]] = []

    def __call__(self, _: str, *command: str, stdin: str = "", **__: float) -> subprocess.CompletedProcess[str]:
        self.commands.append((command, stdin))
        return subprocess.CompletedProcess(command, 0 if self.answer == "OK" else 1, self.answer, "")


def instance(name: str) -> Instance:
    return Instance(id=name, state="running", health="healthy", created=0.0)


@pytest.fixture
def servers(made, monkeypatch):
    by_service = {name: [instance(name)] for name in ("redis-1", "sentinel-1", "gateway", "pages", "patroni-1")}
    monkeypatch.setattr(compose, "instances", lambda _: by_service)
    monkeypatch.setattr(data_tier, "writable_postgres", lambda _: "patroni-1")
    return Servers(made, settings_file.read(made) | {"COMPOSE_PROFILES": "data-ha"}, lambda _: None)


def test_no_secret_is_on_a_command_line(made, servers, monkeypatch):
    executed = Executed("OK")
    monkeypatch.setattr(data_tier, "execute", executed)
    steps.begin(made, rotated_secrets.TABLE)
    servers.prepare(rotated_secrets.TABLE)
    servers.switch(rotated_secrets.TABLE)
    servers.apply_to_redis(secrets_store.mounted_files(made, servers.settings))
    values = {text for name in rotated_secrets.TABLE for text in rotation_state.values(made, name)}
    assert len(executed.commands) > 10
    assert not any(value in " ".join(command) for command, _ in executed.commands for value in values)
    assert any(value in stdin for _, stdin in executed.commands for value in values)


def test_refusal_of_a_server_ends_the_step_without_its_secret(made, servers, monkeypatch):
    monkeypatch.setattr(data_tier, "execute", Executed("ERR no"))
    steps.begin(made, ["postgres_airflow_password", "redis_password"])
    values = {
        text for name in ("postgres_airflow_password", "redis_password") for text in rotation_state.values(made, name)
    }
    with pytest.raises(StackError) as of_postgres:
        servers.prepare(["postgres_airflow_password"])
    with pytest.raises(StackError) as of_redis:
        servers.apply_to_redis(secrets_store.mounted_files(made, servers.settings))
    for refused in (of_postgres, of_redis):
        assert refused.value.code == 1
        assert not any(value in str(refused.value) for value in values)


@pytest.mark.parametrize(
    ("name", "door"), [("airflow_monitoring_password", "gateway"), ("flower_password", "pages"), ("fernet_key", "")]
)
def test_only_the_door_with_a_new_password_is_reloaded(servers, monkeypatch, name, door):
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(compose, "docker", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(compose, "probe_succeeds", lambda _: True)
    monkeypatch.setattr(secrets_store, "mount", lambda *_: True)
    monkeypatch.setattr("ops.rolling.replace_outdated", lambda *_: 0)
    servers.renew([name])
    assert [arguments[-1] for arguments in calls if arguments[0] == "kill"] == ([door] if door else [])
    saved = [arguments[1] for arguments in calls if arguments[0] == "exec"]
    assert saved == ([door] if door else []), "the new process knows the servers of before"


def test_only_files_that_are_read_again_are_written_in_place(servers, monkeypatch):
    live: set[str] = set()
    monkeypatch.setattr(secrets_store, "mount", lambda *arguments: live.update(arguments[3]))
    monkeypatch.setattr("ops.rolling.replace_outdated", lambda *_: 0)
    servers.renew(["fernet_key"])
    assert {"redis/redis_users.acl", "gateway/findings.cfg", "postgres/postgres_airflow_password"} <= live
    assert {name.partition("/")[0] for name in live} == {"redis", "gateway", "pages", "postgres", "backup-files"}
    assert "postgres/postgres_superuser_password" not in live


def test_file_that_up_would_write_is_refused(made, running, monkeypatch):
    monkeypatch.setattr(secrets_store, "change_owners", lambda *_: None)
    monkeypatch.setattr(secrets_store, "all_owned", lambda *_: True)
    settings = settings_file.read(made)
    secrets_store.mount(made, settings, "image")
    before.refuse_new(made, settings, ["fernet_key"])
    with pytest.raises(StackError, match="since the last up"):
        before.refuse_new(made, settings | {"POSTGRES_PORT": "5433"}, ["fernet_key"])
