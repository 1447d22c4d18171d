"""A server reads no more XCom values at once than it has room for.

Problem: in Airflow 3.3.2 `xcom_pull` of a mapped task's values makes the Execution API read all of them at once,
whatever their size, and the UI's list of XComs reads the values of a hundred of them, of which it shows none.
Patch: values that are read for a slice are counted; over SLICE bytes the answer is 413, and the worker asks for them
one by one (split_xcom_slice.py). A list of XComs leaves the values in the database.
Applies to: every SQLAlchemy session, by its event `do_orm_execute`.
Upstream issue: none found.
Remove when: `test_bound_xcom_reads.py` says that upstream's slice and list leave values in the database.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from fastapi import HTTPException
from sqlalchemy import event
from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData
from sqlalchemy.orm import Session, defer

if TYPE_CHECKING:
    from sqlalchemy.orm import ORMExecuteState

SLICE: Final = 2_000_000
"""Bytes of the values in one answer, as JSON."""
AT_ONCE: Final = 4
"""Values that are fetched from the database at a time."""


def read_within_limits(state: ORMExecuteState) -> IteratorResult[Any] | None:
    """Handle a query before it is sent: nothing changes but for values of several XComs.

    Raises:
        HTTPException: 413, when the values are larger than SLICE together.
    """
    mapper = state.bind_mapper
    if mapper is None or mapper.class_.__name__ != "XComModel" or not state.is_select or state.is_relationship_load:
        return None
    # A subclass of Select without these attributes does not exist; a union has no descriptions.
    statement: Any = state.statement
    columns = [column["name"] for column in getattr(statement, "column_descriptions", ())]
    if columns == ["value"] and "airflow_ha_counted" not in state.execution_options:
        return counted(state)
    if columns == ["XComModel"] and getattr(statement, "_limit", None) != 1:
        state.statement = statement.options(defer(mapper.class_.value))
    return None


def counted(state: ORMExecuteState) -> IteratorResult[Any]:
    """Run a query of values, and stop when they are too many."""
    options = {"yield_per": AT_ONCE, "airflow_ha_counted": True}
    rows, total = [], 0
    result: Any = state.invoke_statement(execution_options=options)
    for row in result:
        total += len(json.dumps(row[0]))
        if total > SLICE:
            result.close()
            message = f"The values have more than {SLICE:,} bytes together. Read them one by one."
            detail = {"reason": "slice_too_large", "message": message}
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
        rows.append(tuple(row))
    return IteratorResult(SimpleResultMetaData(["value"]), iter(rows))


def apply() -> None:
    """Count the values that a query reads."""
    event.listen(Session, "do_orm_execute", read_within_limits)
