"""An API server never loads more XCom values at once than its memory can hold.

Problem: in Airflow 3.3.2, `xcom_pull` of a mapped task's values makes the Execution API load all of them at once,
whatever their size. The UI's list of XComs loads the values of a hundred XComs and shows none of them.
Patch: measure the values that are read for a slice. Above MAX_SLICE_BYTES the answer is 413, and the worker requests
the values singly (split_xcom_slice.py). A list of XComs does not load the values.
Applies to: every SQLAlchemy session, by its event `do_orm_execute`.
Upstream issue: none found.
Remove when: `test_bound_xcom_reads.py` reports that upstream's slice and list do not load the values.
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

MAX_SLICE_BYTES: Final = 2_000_000
"""Size of the values in one answer, as JSON."""
FETCH_SIZE: Final = 4
"""Values fetched from the database at a time."""


def read_within_limits(state: ORMExecuteState) -> IteratorResult[Any] | None:
    """Limit a query for the values of several XComs; leave every other query unchanged.

    Raises:
        HTTPException: 413, if the values exceed MAX_SLICE_BYTES together.
    """
    mapper = state.bind_mapper
    if mapper is None or mapper.class_.__name__ != "XComModel" or not state.is_select or state.is_relationship_load:
        return None
    # Every Select has these attributes; a union has no column descriptions.
    statement: Any = state.statement
    columns = [column["name"] for column in getattr(statement, "column_descriptions", ())]
    if columns == ["value"] and "airflow_ha_counted" not in state.execution_options:
        return measured(state)
    if columns == ["XComModel"] and getattr(statement, "_limit", None) != 1:
        state.statement = statement.options(defer(mapper.class_.value))
    return None


def measured(state: ORMExecuteState) -> IteratorResult[Any]:
    """Run a query for values; raise if they exceed MAX_SLICE_BYTES together."""
    options = {"yield_per": FETCH_SIZE, "airflow_ha_counted": True}
    rows, total = [], 0
    result: Any = state.invoke_statement(execution_options=options)
    for row in result:
        total += len(json.dumps(row[0]))
        if total > MAX_SLICE_BYTES:
            result.close()
            message = f"The values exceed {MAX_SLICE_BYTES:,} bytes together. Read them one by one."
            detail = {"reason": "slice_too_large", "message": message}
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
        rows.append(tuple(row))
    return IteratorResult(SimpleResultMetaData(["value"]), iter(rows))


def apply() -> None:
    """Measure the values that a query reads."""
    event.listen(Session, "do_orm_execute", read_within_limits)
