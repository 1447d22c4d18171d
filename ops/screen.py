"""The output of the commands: progress as plain lines with the seconds since the start, results as tables."""

from __future__ import annotations

import contextlib
import sys
import time

from rich.console import Console

from ops.errors import StackError

# A file and a CI log have no width of their own; 140 columns keep the tables complete.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
error_console = Console(stderr=True, highlight=False)

_started = time.monotonic()


def report(line: str) -> None:
    """Print one line of progress, without redrawing, so that a CI log equals the terminal.

    A reader that is gone, as after `up | head`, does not end a change halfway. Rich turns that into SystemExit.
    """
    with contextlib.suppress(OSError, SystemExit):
        console.print(f"[dim]{time.monotonic() - _started:6.1f} s[/dim]  {escape(line)}", soft_wrap=True)


def heading(line: str) -> None:
    """Print the heading of a part of a command."""
    console.print(f"\n[bold]{escape(line)}[/bold]")


def ask_to_confirm(question: str) -> None:
    """Ask a question, and end the command unless the answer is yes.

    Raises:
        StackError: There is no terminal for the question.
        typer.Abort: The user declined.
    """
    import typer

    if not sys.stdin.isatty():
        raise StackError("cannot ask for confirmation: standard input is not a terminal", hint="add --yes")
    typer.confirm(question, abort=True)


def escape(text: str) -> str:
    """Return text whose square brackets Rich prints literally."""
    from rich.markup import escape as rich_escape

    return rich_escape(text)
