"""The error that people see: what is wrong, where, and what to do."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

BAD_INPUT = 2
FAILURE = 1
INTERRUPTED = 130


class StackError(Exception):
    """Ends a command with three lines instead of a traceback.

    Args:
        what: What is wrong, as a sentence without its full stop.
        where: The file, option, service or port it is about; empty when `what` says it.
        hint: What to do about it, one imperative sentence.
        code: The exit code: BAD_INPUT when nothing was changed, FAILURE when something that was begun went wrong.
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


@contextlib.contextmanager
def when_interrupted(hint: str) -> Iterator[None]:
    """Makes Ctrl-C an error that says what to do about what was begun."""
    try:
        yield
    except KeyboardInterrupt:
        raise StackError("interrupted", hint=hint, code=INTERRUPTED) from None
