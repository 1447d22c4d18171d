"""What a rotation does to the running stack, by the step: statements, files, containers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from ops import compose, data_tier, postgres_roles, redis_users, rolling, rotation_state, secrets_store
from ops.errors import FAILURE, StackError
from ops.rotation.rotated_secrets import TABLE
from ops.services import GATEWAY, PAGES_DOOR, REDIS_NODES, SENTINELS
from ops.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from ops.compose import Instance
    from ops.project import Project

LIVE: Final = ("redis/", "gateway/", "pages/", "backup-files/stack_secrets.json")
"""The start of the names of files that running containers read again: at each use, or when servers.py makes them."""
ONLY_AT_FIRST: Final = tuple(f"postgres/{name}" for name, secret in TABLE.items() if secret.role)
"""Postgres reads these passwords in an empty data directory only."""
DOORS: Final = {"airflow_monitoring_password": GATEWAY, "flower_password": PAGES_DOOR}
"""The door that asks for a password, by its secret."""
PSQL: Final = ("psql", "--no-psqlrc", "--quiet", "--username=postgres", "--dbname=postgres", "--set=ON_ERROR_STOP=1")
OPERATOR: Final = (
    "sh",
    "-c",
    "REDISCLI_AUTH=$(cat /run/secrets/redis_operator_password)"
    ' exec redis-cli --no-auth-warning --user operator -h 127.0.0.1 "$@"',
    "redis-cli",
)
"""redis-cli in a container of Redis or Sentinel, with the password of the file there."""
USER: Final = re.compile(r"^user (\w+) on ((?:#[0-9a-f]{64} ?)+)", re.MULTILINE)
"""A user with the hashes of its passwords, in redis_users.USERS_FILE and SENTINEL_FILE."""
SAVE_SERVERS: Final = (
    "set -e; exec 3<>/dev/tcp/127.0.0.1/8407; echo 'show servers state' >&3; "
    "cat <&3 >/tmp/servers.part; mv /tmp/servers.part /tmp/servers.state"
)
"""For bash in a door; the port and the file are those of compose/gateway/common.cfg."""
RELOADED_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Servers:
    """The running stack.

    Attributes:
        project: Its files.
        settings: Of .env.
        report: Prints a line of progress.
    """

    project: Project
    settings: Mapping[str, str]
    report: Callable[[str], None]

    @property
    def by_service(self) -> dict[str, list[Instance]]:
        """The containers."""
        return compose.instances(self.settings["COMPOSE_PROJECT_NAME"])

    def prepare(self, names: Collection[str]) -> None:
        """Create the interim roles with the new passwords."""
        statements = [
            postgres_roles.create_interim(role, rotation_state.values(self.project, name)[1])
            for name, role in roles(names)
        ]
        self.query(statements)

    def switch(self, names: Collection[str]) -> None:
        """Give roles their new passwords."""
        statements = [
            postgres_roles.set_password(role, rotation_state.values(self.project, name)[1])
            for name, role in roles(names)
        ]
        self.query(statements)

    def drop(self, names: Collection[str]) -> None:
        """Drop the interim roles, which no client uses any more."""
        self.query([postgres_roles.drop_interim(role) for _, role in roles(names)])

    def renew(self, names: Collection[str]) -> None:
        """Give every container the files of the recorded step: first those that stay, then those that are replaced.

        Args:
            names: The secrets that change.
        """
        texts = secrets_store.mounted_files(self.project, self.settings)
        live = {name for name in texts if name.startswith(LIVE)} | set(ONLY_AT_FIRST)
        secrets_store.mount(self.project, self.settings, self.settings["AIRFLOW_IMAGE"], live)
        if any(TABLE[name].redis_user for name in names):
            self.apply_to_redis(texts)
        self.reload_doors([door for name, door in DOORS.items() if name in names])
        number = rolling.replace_outdated(self.project, self.report)
        self.report(f"{number} containers are replaced")

    def encrypt_again(self) -> None:
        """Encrypt what the database holds with the first Fernet key.

        Raises:
            StackError: It failed; the former key stays valid.
        """
        self.report("encrypting Connections, Variables and triggers with the new key")
        what = "encrypt the database with the new Fernet key"
        done = compose.run_module(self.project, "migrate", "airflow_ha.fernet_rotation", what=what)
        if done.returncode != 0:
            last = data_tier.last_line(done.stderr)
            raise StackError(
                f"cannot encrypt the database with the new Fernet key: {last}",
                hint="fix the cause, then run ./ops/stack rotate --finish; the former key is still valid",
                code=FAILURE,
            )
        self.report(data_tier.last_line(done.stdout))

    def query(self, statements: Collection[str]) -> None:
        """Run statements as Postgres' superuser, through the socket in its container, which needs no password.

        Raises:
            StackError: Postgres refused; the error does not show the statements, which have passwords.
        """
        if not statements:
            return
        container = data_tier.writable_postgres(self.by_service)
        done = data_tier.execute(container, *PSQL, stdin="".join(statements))
        if done.returncode != 0:
            reason = next(iter(done.stderr.splitlines()), "no output")
            raise StackError(f"cannot change the roles of Postgres: {reason}", code=FAILURE)

    def apply_to_redis(self, texts: Mapping[str, str]) -> None:
        """Give running Redis nodes and Sentinels the passwords of their files, without a restart.

        Args:
            texts: Of secrets_store.mounted_files().
        """
        by_service = self.by_service
        users, of_sentinel = texts[redis_users.USERS_FILE], texts[redis_users.SENTINEL_FILE]
        for node in compose.in_state(by_service, "running", ("redis", *REDIS_NODES)):
            self.set_passwords(node, users)
            replica = setting(texts[redis_users.AUTH_FILE], "masterauth")
            self.redis(node, "config", "set", "masterauth", stdin=replica)
        port = ("-p", "26379")
        for node in compose.in_state(by_service, "running", SENTINELS):
            self.set_passwords(node, of_sentinel, *port)
            at_redis = setting(of_sentinel, "sentinel auth-pass airflow")
            self.redis(node, *port, "sentinel", "set", "airflow", "auth-pass", stdin=at_redis)
            at_peers = setting(of_sentinel, "sentinel sentinel-pass")
            self.redis(node, *port, "sentinel", "config", "set", "sentinel-pass", stdin=at_peers)

    def set_passwords(self, node: Instance, users: str, *options: str) -> None:
        """Give the users of a Redis node or a Sentinel the passwords in its file.

        `ACL LOAD` would also close connections, and a Sentinel has none.
        """
        for user, hashes in USER.findall(users):
            self.redis(node, *options, "acl", "setuser", user, "resetpass", *hashes.split())

    def redis(self, node: Instance, *command: str, stdin: str | None = None) -> None:
        """Run a command that answers OK; `stdin` is its last argument, which the process list must not show.

        Raises:
            StackError: It does not.
        """
        last = ["-x"] if stdin is not None else []
        done = data_tier.execute(node.id, *OPERATOR, *last, *command, stdin=stdin or "")
        if done.stdout.strip() != "OK":
            raise StackError(
                f"cannot change the passwords of Redis: {data_tier.last_line(done.stdout + done.stderr)}",
                where=node.id,
                hint="run ./ops/stack status, then ./ops/stack rotate --finish",
                code=FAILURE,
            )

    def reload_doors(self, services: Collection[str]) -> None:
        """Make gateway and pages read their passwords again; they go on serving meanwhile."""
        for door in compose.in_state(self.by_service, "running", services):
            reload_door(door.id)
            what = f"{door.id} answers after its reload"
            wait(partial(compose.probe_succeeds, door.id), RELOADED_SECONDS, what, self.report)


def reload_door(container: str) -> None:
    """Make HAProxy read its files again, with the servers' addresses and states of before.

    A new process without them answers 503 until DNS has answered: one of 1,453 requests on two cores under high load.
    """
    compose.docker("exec", container, "bash", "-c", SAVE_SERVERS)
    compose.docker("kill", "--signal=USR2", container)


def setting(text: str, name: str) -> str:
    """Return the value of a line in a file of Redis or Sentinel."""
    return next(line.removeprefix(f"{name} ") for line in text.splitlines() if line.startswith(f"{name} "))


def roles(names: Collection[str]) -> list[tuple[str, str]]:
    """Return the secrets that are passwords of a role of Postgres, each with its role."""
    return [(name, TABLE[name].role) for name in names if TABLE[name].role]
