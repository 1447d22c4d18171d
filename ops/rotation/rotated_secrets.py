"""The table of the secrets that can be rotated, and of those that cannot, with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ops import postgres_roles, redis_users, rotation_state, token_keys
from ops.errors import StackError
from ops.settings_file import has_own_data

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


@dataclass(frozen=True)
class RotatedSecret:
    """A secret that can be rotated.

    Attributes:
        purpose: Who uses it for what.
        role: The role of Postgres that it is the password of.
        redis_user: The user of Redis, or of the Sentinels, that it is the password of.
        valid_seconds: How long something that was signed with it may be valid.
    """

    purpose: str
    role: str = ""
    redis_user: str = ""
    valid_seconds: float = 0.0

    @property
    def is_of_data(self) -> bool:
        """Whether it is a log-in at Postgres or Redis, which may be external."""
        return bool(self.role or self.redis_user)


ROLES: Final = {
    "airflow": "Airflow's database",
    "celery_results": "results of tasks",
    "monitoring": "postgres-exporter",
}
"""The roles of Postgres whose password can be rotated, each with its use."""
REDIS_USERS: Final = {
    "operator": "./ops/stack at Redis and Sentinels",
    "health": "health checks of Redis and Sentinels",
    "replica": "replication of Redis",
    "sentinel": "Sentinels at Redis and at each other",
    "exporter": "redis-exporter",
    "scheduler": "schedulers at Redis",
    "worker": "workers at Redis",
    "flower": "Flower at Redis",
}
"""The users of compose/redis/users.acl, each with its use."""
TABLE: Final[Mapping[str, RotatedSecret]] = {
    rotation_state.FERNET: RotatedSecret("encrypts Connections, Variables and arguments of triggers"),
    token_keys.TASKS: RotatedSecret("signs tokens of tasks", valid_seconds=token_keys.VALID_SECONDS[token_keys.TASKS]),
    token_keys.USERS: RotatedSecret("signs tokens of users", valid_seconds=token_keys.VALID_SECONDS[token_keys.USERS]),
    **{postgres_roles.PASSWORDS[role]: RotatedSecret(purpose, role=role) for role, purpose in ROLES.items()},
    **{redis_users.secret_name(user): RotatedSecret(text, redis_user=user) for user, text in REDIS_USERS.items()},
    "airflow_admin_password": RotatedSecret("the user admin of Airflow"),
    "airflow_monitoring_password": RotatedSecret("monitoring_dag at Airflow and at the gateway"),
    "flower_password": RotatedSecret("the page of Flower"),
}
NOT_ROTATED: Final[Mapping[str, str]] = {
    "api_secret_key": "it has no second value; `up` takes an edited file over, and users may have to reload a page",
    "observability_password": "`up` takes an edited file over, and replaces all containers at once",
    "grafana_admin_password": "Grafana stores it; change it in Grafana",
    "backup_passphrase": "every backup is encrypted with it",
    "postgres_superuser_password": "Patroni and the backups have no second log-in",
    "postgres_replication_password": "Patroni has no second log-in",
    "patroni_api_password": "Patroni accepts one password",
    "etcd_password": "Patroni has no second log-in",
}
"""The other secrets of secrets_store.GENERATORS, each with the reason."""


def chosen(settings: Mapping[str, str], names: Sequence[str], *, all_of_them: bool) -> list[str]:
    """Return the secrets to rotate.

    Args:
        settings: Of .env.
        names: Those that the operator named.
        all_of_them: Whether to rotate all that this stack can.

    Raises:
        StackError: A secret is unknown, or cannot be rotated.
    """
    external = set() if has_own_data(settings) else {name for name, secret in TABLE.items() if secret.is_of_data}
    if all_of_them:
        return [name for name in TABLE if name not in external]
    for name in names:
        refuse(name, external)
    return [name for name in TABLE if name in names]


def refuse(name: str, external: Collection[str]) -> None:
    """Refuse a secret that this stack cannot rotate.

    Args:
        name: The secret.
        external: The secrets of an external Postgres and Redis.

    Raises:
        StackError: The error names the reason.
    """
    if name in NOT_ROTATED:
        raise StackError(f"cannot rotate {name}: {NOT_ROTATED[name]}", hint="choose from ./ops/stack rotate --list")
    if name not in TABLE:
        raise StackError(
            f"cannot rotate {name!r}: there is no such secret", hint="choose from ./ops/stack rotate --list"
        )
    if name in external:
        raise StackError(
            f"cannot rotate {name}: Postgres and Redis are external, so only you can change it there",
            hint=f"change it there, write it into secrets/{name}, then run ./ops/stack up",
        )
