"""Encrypt what the database holds with the first Fernet key: `python -m airflow_ha.fernet_rotation`.

It does what `airflow rotate-fernet-key` does, while Airflow runs. That command reads all rows and writes them in one
transaction, so that it undoes what a task stored in a Variable meanwhile. Here each row is locked between the two, and
a transaction has BATCH rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

BATCH: Final = 100


def main() -> None:
    """Encrypt every row again."""
    from airflow.utils.providers_configuration_loader import providers_configuration_loaded

    print(f"encrypted {providers_configuration_loaded(encrypt_again)()} rows with the first key")


def encrypt_again() -> int:
    """Encrypt every row with the first key, and return their number."""
    from airflow.models import Connection, Trigger, Variable
    from airflow.models.connection_test import ConnectionTestRequest

    numbers = [
        encrypt_rows(Connection, Connection.is_encrypted | Connection.is_extra_encrypted),
        encrypt_rows(Variable, Variable.is_encrypted),
        encrypt_rows(Trigger, None),
        encrypt_rows(
            ConnectionTestRequest, ConnectionTestRequest.is_encrypted | ConnectionTestRequest.is_extra_encrypted
        ),
    ]
    return sum(numbers)


def encrypt_rows(model: Any, condition: Any) -> int:
    """Encrypt the rows of a model, and return their number.

    Args:
        model: One of Airflow's models with a method `rotate_fernet_key`.
        condition: The rows; None for all.
    """
    from airflow.utils.session import create_session
    from sqlalchemy import inspect

    (key,) = inspect(model).primary_key
    attribute, last, number = inspect(model).get_property_by_column(key).key, None, 0
    while True:
        with create_session() as session:
            rows = next_rows(session, model, key, condition, last)
            for row in rows:
                row.rotate_fernet_key()
            last = getattr(rows[-1], attribute) if rows else None
            number += len(rows)
        if not rows:
            return number


def next_rows(session: Session, model: Any, key: Any, condition: Any, last: Any) -> list[Any]:
    """Return the next rows in the order of their key, locked until the transaction ends."""
    from sqlalchemy import select
    from sqlalchemy.orm import lazyload

    query = select(model).options(lazyload("*")).order_by(key).limit(BATCH).with_for_update(of=model)
    if condition is not None:
        query = query.where(condition)
    if last is not None:
        query = query.where(key > last)
    return list(session.scalars(query))


if __name__ == "__main__":
    main()
