"""A rotation leaves no client with a value that its server refuses, wherever it is interrupted."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection

import pytest

from ops import postgres_roles, rotation_state, secrets_store, token_keys
from ops.errors import StackError
from ops.project import Project
from ops.rotation import steps
from ops.rotation.rotated_secrets import NOT_ROTATED, TABLE
from ops.rotation_state import FERNET, InUse

ALL = tuple(TABLE)
ROLES = {name: secret.role for name, secret in TABLE.items() if secret.role}
WITHOUT_SERVER = frozenset({"airflow_admin_password"})
"""`migrate` sets it; users log in with it, and no container."""


class KilledError(Exception):
    """The process was killed."""


class World:
    """Servers and clients of every secret, as the steps change them.

    Every change is checked in both orders: the server gets its file first, or the client.

    Args:
        project: The stack.
        interrupt_at: The number of the point at which the process is killed; 0 for never.
    """

    def __init__(self, project: Project, interrupt_at: int = 0) -> None:
        self.project = project
        self.interrupt_at = interrupt_at
        self.points = 0
        self.in_use = self.recorded()
        self.roles = {role: self.in_use.current[name] for name, role in ROLES.items()}
        self.log_ins = {role: postgres_roles.user_and_password(role, self.in_use) for role in ROLES.values()}
        self.stored_with = {self.in_use.current[FERNET]}

    def recorded(self) -> InUse:
        return rotation_state.in_use(self.project, secrets_store.generated_values(self.project))

    def point(self) -> None:
        self.points += 1
        if self.points == self.interrupt_at:
            raise KilledError

    def check_log_ins(self) -> None:
        for user, password in self.log_ins.values():
            assert self.roles.get(user) == password

    def prepare(self, names: Collection[str]) -> None:
        self.point()
        for name in names:
            if name in ROLES:
                self.roles[postgres_roles.interim(ROLES[name])] = rotation_state.values(self.project, name)[1]
                self.point()

    def switch(self, names: Collection[str]) -> None:
        for name in names:
            if name in ROLES:
                self.roles[ROLES[name]] = rotation_state.values(self.project, name)[1]
                self.check_log_ins()
                self.point()

    def renew(self, names: Collection[str]) -> None:
        self.point()
        before, after = self.in_use, self.recorded()
        for name in set(TABLE) - ROLES.keys() - WITHOUT_SERVER - {FERNET}:
            assert after.current[name] in before.accepted(name), (
                f"a client of {name} is refused by the server of before"
            )
            assert before.current[name] in after.accepted(name), f"a client of before is refused by {name}'s server"
        keys = [",".join(each.accepted(FERNET)).split(",") for each in (before, after)]
        assert keys[1][0] in keys[0], "an old container cannot read what a new one encrypts"
        assert self.stored_with | {keys[0][0]} <= set(keys[1]), "a new container cannot read what is stored"
        self.stored_with |= {keys[0][0], keys[1][0]}
        for role in ROLES.values():
            self.log_ins[role] = postgres_roles.user_and_password(role, after)
            self.check_log_ins()
        self.in_use = after
        self.point()

    def encrypt_again(self) -> None:
        self.stored_with = {",".join(self.in_use.accepted(FERNET)).split(",")[0]}
        self.point()

    def drop(self, names: Collection[str]) -> None:
        for name in names:
            if name in ROLES:
                self.roles.pop(postgres_roles.interim(ROLES[name]), None)
                self.check_log_ins()
                self.point()


@pytest.fixture
def made(project: Project) -> Project:
    secrets_store.generate(project)
    rotation_state.note_used(project, secrets_store.generated_values(project))
    return project


def finish(project: Project, world: World) -> None:
    steps.finish(project, world, lambda _: None)


def let_tokens_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    later = time.time() + 30 * 3600
    monkeypatch.setattr(steps.time, "time", lambda: later)


def test_every_secret_is_rotated_or_has_a_reason():
    assert TABLE.keys() | NOT_ROTATED.keys() == secrets_store.GENERATORS.keys()
    assert TABLE.keys() & NOT_ROTATED.keys() == set()


def test_a_rotation_ends_with_new_values_only(made, monkeypatch):
    before = secrets_store.generated_values(made)
    world = World(made)
    steps.begin(made, ALL)
    finish(made, world)
    waiting = rotation_state.read(made).steps
    assert dict.fromkeys(token_keys.TRUSTED, "wait") == waiting
    after = secrets_store.generated_values(made)
    assert {name for name in after if after[name] != before[name]} == set(ALL)
    assert all(world.in_use.accepted(name) == [after[name]] for name in set(ALL) - waiting.keys())
    assert world.roles == {role: after[name] for name, role in ROLES.items()}
    let_tokens_expire(monkeypatch)
    finish(made, world)
    assert rotation_state.read(made).steps == {}
    assert not rotation_state.folder(made).exists()
    assert world.recorded().beside == {}
    assert rotation_state.edited(made, after) == []


def interrupt_writes(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """Make every write of the record and of a file a point of interruption, before and after it."""

    def interrupted(function: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: object) -> None:
            world.point()
            function(*arguments)
            world.point()

        return call

    monkeypatch.setattr(steps, "write_atomically", interrupted(steps.write_atomically))
    monkeypatch.setattr(rotation_state, "write", interrupted(rotation_state.write))
    monkeypatch.setattr(rotation_state, "write_atomically", interrupted(rotation_state.write_atomically))


FEW = (FERNET, token_keys.TASKS, "postgres_airflow_password", "redis_password", "flower_password")
"""One secret of each kind."""


def test_a_rotation_is_finished_wherever_it_was_interrupted(made):
    number = 0
    while True:
        number += 1
        before = secrets_store.generated_values(made)
        world = World(made, interrupt_at=number)
        with pytest.MonkeyPatch.context() as patch:
            interrupt_writes(patch, world)
            try:
                steps.begin(made, FEW)
                finish(made, world)
            except KilledError:
                pass
            else:
                break
        rotation_state.refuse_edited(made, secrets_store.generated_values(made))
        began = bool(rotation_state.read(made).steps)
        while rotation_state.read(made).steps:
            finish(made, world)
            due_now(made)
        after = secrets_store.generated_values(made)
        changed = {name for name in after if after[name] != before[name]}
        assert rotation_state.read(made).steps == {}, number
        assert changed == (set(FEW) if began else set()), number
        assert world.in_use.beside == {}
        assert world.stored_with == {after[FERNET]}
        assert world.roles == {role: after[name] for name, role in ROLES.items()}
    assert number > 40


def due_now(project: Project) -> None:
    """Let the tokens of former keys expire now."""
    rotation = rotation_state.read(project)
    if rotation.steps:
        rotation_state.write(project, rotation_state.Rotation(rotation.steps, dict.fromkeys(rotation.until, 0.0)))


def test_file_edited_by_hand_is_refused_with_the_command(made):
    (made.secrets / "postgres_airflow_password").write_text("mine-of-today\n")
    with pytest.raises(StackError) as refused:
        secrets_store.check(made, lambda: True)
    assert "rotate postgres_airflow_password" in refused.value.hint
    assert "mine-of-today" not in str(refused.value)
    secrets_store.check(made, lambda: True, external=True)
    (made.secrets / "airflow_admin_password").write_text("another-one-12\n")
    (made.secrets / "postgres_airflow_password").write_text(
        rotation_state.used(made, "postgres_airflow_password") or ""
    )
    secrets_store.check(made, lambda: True)


def test_file_edited_by_hand_becomes_the_new_value(made):
    former = secrets_store.read(made, "postgres_airflow_password")
    world = World(made)
    (made.secrets / "postgres_airflow_password").write_text("mine-of-today\n")
    steps.begin(made, ["postgres_airflow_password"])
    assert secrets_store.read(made, "postgres_airflow_password") == former
    finish(made, world)
    assert secrets_store.read(made, "postgres_airflow_password") == "mine-of-today"
    assert world.roles["airflow"] == "mine-of-today"
    rotation_state.refuse_edited(made, secrets_store.generated_values(made))


def test_fernet_file_has_both_keys_until_the_former_is_dropped(made):
    former = secrets_store.read(made, FERNET)

    class Backup(World):
        def encrypt_again(self) -> None:
            assert former in secrets_store.read(made, FERNET).split(",")
            super().encrypt_again()

    world = Backup(made)
    steps.begin(made, [FERNET])
    finish(made, world)
    assert former not in secrets_store.read(made, FERNET)


def test_a_rotation_makes_only_its_secrets_younger(made):
    old = time.time() - 90 * 86400
    for name in secrets_store.GENERATORS:
        os.utime(made.secrets / name, (old, old))
    steps.begin(made, ["flower_password"])
    finish(made, World(made))
    ages = {name: time.time() - (made.secrets / name).stat().st_mtime for name in secrets_store.GENERATORS}
    assert {name for name, seconds in ages.items() if seconds < 3600} == {"flower_password"}


def test_an_abandoned_rotation_leaves_values_that_servers_accept(made):
    class Stopped(World):
        def renew(self, names: Collection[str]) -> None:
            super().renew(names)
            raise KilledError

    world = Stopped(made)
    steps.begin(made, ALL)
    with pytest.raises(KilledError):
        finish(made, world)
    rotation_state.abandon(made)
    after = World(made)
    assert after.in_use.beside == {}
    assert world.roles.items() >= after.roles.items()


def test_other_commands_wait_for_a_rotation_between_two_steps(made):
    rotation_state.refuse_unfinished(made, "upgrade")
    steps.begin(made, [token_keys.USERS])
    with pytest.raises(StackError, match="upgrade"):
        rotation_state.refuse_unfinished(made, "upgrade")
    finish(made, World(made))
    assert rotation_state.read(made).steps == {token_keys.USERS: "wait"}
    rotation_state.refuse_unfinished(made, "upgrade")
