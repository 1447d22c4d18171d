"""A task that pulls more mapped XComs than an API server reads at once gets them one by one.

Problem: in Airflow 3.3.2, a task requests a slice of a mapped task's values in one call, whatever its size.
Patch: if the Execution API answers that the slice is too large (bound_xcom_reads.py), request its values singly.
Applies to: `airflow.sdk.api.client.XComOperations.get_sequence_slice`.
Upstream issue: none found.
Remove when: bound_xcom_reads is removed.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from airflow.sdk.api.client import ServerResponseError, XComOperations
from airflow.sdk.api.datamodels._generated import XComSequenceIndexResponse, XComSequenceSliceResponse

_get_sequence_slice: Any = XComOperations.get_sequence_slice


def get_sequence_slice(  # upstream's signature
    self: XComOperations,
    dag_id: str,
    run_id: str,
    task_id: str,
    key: str,
    start: int | None,
    stop: int | None,
    step: int | None,
    include_prior_dates: bool = False,
) -> XComSequenceSliceResponse:
    """Return upstream's slice, in one call per value if it is too large for one."""
    name = (dag_id, run_id, task_id, key)
    try:
        answer: XComSequenceSliceResponse = _get_sequence_slice(self, *name, start, stop, step, include_prior_dates)
    except ServerResponseError as refused:
        # The API offers no single values of earlier runs.
        if refused.response.status_code != HTTPStatus.REQUEST_ENTITY_TOO_LARGE or include_prior_dates:
            raise
        count = self.head(*name).len
        values = (self.get_sequence_item(*name, number) for number in range(*slice(start, stop, step).indices(count)))
        answer = XComSequenceSliceResponse(
            [value.root for value in values if isinstance(value, XComSequenceIndexResponse)]
        )
    return answer


def apply() -> None:
    """Request the values of a large slice one by one."""
    XComOperations.get_sequence_slice = get_sequence_slice
