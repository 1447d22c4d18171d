"""What the commands write: progress as plain lines with the seconds since the start, results as tables."""

from __future__ import annotations

import sys
import time

from rich.console import Console

# Tables are not cut off in a file or a CI log, which have no width.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
error_console = Console(stderr=True, highlight=False)

_started = time.monotonic()


def report(line: str) -> None:
    """One line of progress. The same for a terminal, a file and a CI log: nothing is drawn over."""
    console.print(f"[dim]{time.monotonic() - _started:6.1f} s[/dim]  {escape(line)}", soft_wrap=True)


def heading(line: str) -> None:
    """The start of a part of a command."""
    console.print(f"\n[bold]{escape(line)}[/bold]")


def escape(text: str) -> str:
    """Text that may hold square brackets, as Rich prints it."""
    from rich.markup import escape as rich_escape

    return rich_escape(text)
