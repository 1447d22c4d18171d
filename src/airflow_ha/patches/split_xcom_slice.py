"""A task that pulls more of a mapped task's XComs than a server reads at once gets them one by one.

Problem: in Airflow 3.3.2 a task asks for a slice of a mapped task's values in one request, of any size.
Patch: where the Execution API answers that the slice is too large (bound_xcom_reads.py), its values are asked for
singly.
Applies to: `airflow.sdk.api.client.XComOperations.get_sequence_slice`.
Upstream issue: none found.
Remove when: bound_xcom_reads goes.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from airflow.sdk.api.client import ServerResponseError, XComOperations
from airflow.sdk.api.datamodels._generated import XComSequenceIndexResponse, XComSequenceSliceResponse

_get_sequence_slice: Any = XComOperations.get_sequence_slice


def get_sequence_slice(
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
    """As upstream's, in as many requests as it takes."""
    name = (dag_id, run_id, task_id, key)
    try:
        answer: XComSequenceSliceResponse = _get_sequence_slice(self, *name, start, stop, step, include_prior_dates)
    except ServerResponseError as refused:
        # Values of earlier runs cannot be asked for one by one.
        if refused.response.status_code != HTTPStatus.REQUEST_ENTITY_TOO_LARGE or include_prior_dates:
            raise
        count = self.head(*name).len
        single = (self.get_sequence_item(*name, number) for number in range(*slice(start, stop, step).indices(count)))
        answer = XComSequenceSliceResponse([one.root for one in single if isinstance(one, XComSequenceIndexResponse)])
    return answer


def apply() -> None:
    """Ask for the values of a large slice one by one."""
    XComOperations.get_sequence_slice = get_sequence_slice
