"""Errors that trying again cannot cure."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def no_retry_on(*errors: type[Exception]) -> Iterator[None]:
    """Fail the task at once, with the same message, where one of the errors comes up inside.

    Raises:
        AirflowFailException: in place of the error; Airflow then leaves the task's retries unused.
    """
    from airflow.sdk.exceptions import AirflowFailException

    try:
        yield
    except errors as error:
        raise AirflowFailException(str(error)) from error
