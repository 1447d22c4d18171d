"""Polling with a deadline and regular progress lines."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ops.errors import FAILURE, StackError

if TYPE_CHECKING:
    from collections.abc import Callable

POLL_SECONDS = 1.0
REPORT_SECONDS = 10.0
STATUS_HINT = "run ./ops/stack status"


def wait(
    condition: Callable[[], Any],
    seconds: float,
    what: str,
    report: Callable[[str], None],
    *,
    hint: str = STATUS_HINT,
    poll_seconds: float | None = None,
) -> Any:
    """Return the first true value of a condition.

    Args:
        condition: Called every `poll_seconds`.
        seconds: The timeout.
        what: The condition as a clause, for messages: "every service is healthy".
        report: Prints a line of progress, every REPORT_SECONDS.
        hint: The hint of the error.
        poll_seconds: POLL_SECONDS unless given.

    Raises:
        StackError: The condition is still false at the deadline.
    """
    started = reported_at = time.monotonic()
    while not (value := condition()):
        now = time.monotonic()
        if now > started + seconds:
            raise StackError(f"cannot confirm that {what}: timeout after {seconds:.0f} s", hint=hint, code=FAILURE)
        if now - reported_at > REPORT_SECONDS:
            report(f"waiting until {what}")
            reported_at = now
        time.sleep(POLL_SECONDS if poll_seconds is None else poll_seconds)
    return value
