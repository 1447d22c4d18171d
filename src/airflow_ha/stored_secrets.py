"""Print the secrets in Airflow's Connections and Variables: `python -m airflow_ha.stored_secrets`, one JSON list.

`./ops/stack support-bundle` removes them from what it collects. It runs where the Fernet key is, and reads the output
from a pipe.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from airflow_ha.secret_masking import PASSWORD_NAME, passwords_of_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LONG_VALUE: Final = 8
"""Length from which a value counts as secret whatever its name; shorter ones are words that logs need."""
LONG_LOGIN: Final = 16
"""Length from which a log-in counts as secret: an access key has 20 characters."""
OWN_PREFIX: Final = "monitoring_"
"""Of the stack's own Variables, which hold thresholds and names of DAGs."""


class StoredConnection(NamedTuple):
    """The fields of a Connection that may hold secrets."""

    login: str
    password: str
    host: str
    extra: str


def secrets_of(connections: Iterable[StoredConnection], variables: Iterable[tuple[str, str]]) -> set[str]:
    """Return the secrets in Connections and Variables.

    Args:
        connections: All Connections.
        variables: Names and values of all Variables.
    """
    found: set[str] = set()
    for connection in connections:
        found.add(connection.password)
        if len(connection.login) >= LONG_LOGIN:
            found.add(connection.login)
        # The host of a webhook may be its whole URL: what follows the name of the server is its secret.
        address = connection.host.rpartition("://")[2]
        found |= {part for part in address.split("/")[1:] if len(part) >= LONG_VALUE}
        found |= set(leaves("", connection.extra))
    for name, value in variables:
        if not name.startswith(OWN_PREFIX):
            found |= set(leaves(name, value))
    return (found | {password for text in found for password in passwords_of_url(text)}) - {""}


def leaves(name: str, text: str) -> Iterator[str]:
    """Yield a value, and the values in it if it is JSON, that are long or have a sensitive name."""
    if is_secret(name, text):
        yield text
    try:
        yield from strings(name, json.loads(text))
    except ValueError:
        return


def strings(name: str, value: Any) -> Iterator[str]:
    """Yield the secret strings of a JSON value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from strings(f"{name}.{key}" if PASSWORD_NAME.search(name) else key, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(name, inner)
    elif isinstance(value, str) and is_secret(name, value):
        yield value
        # Connections nest JSON in the strings of their extra.
        yield from (leaf for leaf in leaves(name, value) if leaf != value)


def is_secret(name: str, value: str) -> bool:
    """Return whether a value is long or has a sensitive name."""
    return bool(value) and (len(value) >= LONG_VALUE or PASSWORD_NAME.search(name) is not None)


def main() -> None:
    """Print the secrets.

    Raises:
        ValueError: A Variable cannot be decrypted.
    """
    from airflow.models import Connection, Variable
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        # A password that cannot be decrypted raises an error.
        connections = [
            StoredConnection(each.login or "", each.password or "", each.host or "", each.extra or "")
            for each in session.scalars(select(Connection))
        ]
        variables = []
        for variable in session.scalars(select(Variable)):
            value = variable.get_val()
            if value is None and variable._val is not None:
                raise ValueError(f"cannot decrypt the Variable {variable.key}")
            variables.append((variable.key, value or ""))
    json.dump(sorted(secrets_of(connections, variables)), sys.stdout)
    print()


if __name__ == "__main__":
    main()
