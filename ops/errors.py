"""The error that a command prints: the problem, where it is, and a hint."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

BAD_INPUT = 2
FAILURE = 1
INTERRUPTED = 130


class StackError(Exception):
    """An error that ends a command with three lines instead of a traceback.

    Args:
        what: The problem as `cannot X: reason`, without a full stop.
        where: The file, option, service or port concerned; empty if `what` names it.
        hint: One imperative sentence: how to fix the problem.
        code: The exit code: BAD_INPUT if nothing was changed, FAILURE if a change had started.
    """

    def __init__(self, what: str, *, where: str = "", hint: str = "", code: int = BAD_INPUT) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint
        self.code = code

    def __str__(self) -> str:
        lines = [f"error: {self.what}"]
        if self.where:
            lines.append(f"where: {self.where}")
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)


def reason_of(error: BaseException) -> str:
    """Return the reason of a failure in one line."""
    if isinstance(error, StackError):
        return error.what
    return "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def when_interrupted(hint: str) -> Iterator[None]:
    """Turn Ctrl-C in the block into a StackError with a hint for the unfinished change."""
    try:
        yield
    except KeyboardInterrupt:
        raise StackError("interrupted", hint=hint, code=INTERRUPTED) from None
