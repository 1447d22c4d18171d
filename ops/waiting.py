"""Waiting for something to become so, with a word now and then."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ops.errors import FAILURE, StackError

if TYPE_CHECKING:
    from collections.abc import Callable

POLL_SECONDS = 1.0
WORD_SECONDS = 10.0


def wait(condition: Callable[[], Any], seconds: float, what: str, report: Callable[[str], None]) -> Any:
    """What a condition returns as soon as that is true.

    Raises:
        StackError: It is not within so many seconds.
    """
    deadline = time.monotonic() + seconds
    said_at = time.monotonic()
    while not (answer := condition()):
        now = time.monotonic()
        if now > deadline:
            raise StackError(f"not within {seconds:.0f} s: {what}", hint="./ops/stack status", code=FAILURE)
        if now - said_at > WORD_SECONDS:
            report(f"waiting until {what}")
            said_at = now
        time.sleep(POLL_SECONDS)
    return answer
