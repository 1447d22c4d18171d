"""Errors that a retry cannot fix."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def no_retry_on(*errors: type[Exception]) -> Iterator[None]:
    """Fail the task without a retry if one of the errors is raised in the block.

    Raises:
        AirflowFailException: replaces the error and keeps its message; Airflow then skips the task's retries.
    """
    from airflow.sdk.exceptions import AirflowFailException

    try:
        yield
    except errors as error:
        raise AirflowFailException(str(error)) from error
