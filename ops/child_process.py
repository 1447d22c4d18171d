"""Child processes whose output becomes progress, at least every 10 s, and whose last lines explain a failure."""

from __future__ import annotations

import collections
import queue
import subprocess
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ops.errors import FAILURE, StackError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

# After this long without output the child is reported as still running.
HEARTBEAT_SECONDS = 10.0
# A reader cannot follow lines of progress that come more often.
REPORT_INTERVAL_SECONDS = 2.0
KEPT_LINES = 25


class ChildFailedError(Exception):
    """A child process exited with an error; `tail` holds its last lines of output."""

    def __init__(self, command: str, status: int, tail: Sequence[str]) -> None:
        self.status = status
        self.tail = list(tail)
        super().__init__("\n".join([f"`{command}` failed (exit {status})", *self.tail]))


class SilentChildError(Exception):
    """A child process wrote nothing for longer than it may, and was killed."""


def run_limited(
    arguments: Sequence[str],
    seconds: float,
    what: str,
    *,
    stdin: str = "",
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command without progress and return its result, whatever its status.

    Args:
        arguments: The command.
        seconds: The timeout, from ops/time_limits.py.
        what: What the command does, for the error: "copy the database".
        stdin: Its standard input.
        environment: Its whole environment; None: this process's.

    Raises:
        StackError: It has not ended in time, and was killed.
    """
    try:
        return subprocess.run(
            arguments, input=stdin, capture_output=True, text=True, check=False, timeout=seconds, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise no_answer(what, seconds) from error


def no_answer(what: str, seconds: float) -> StackError:
    """Return the error of a child process that has not ended in time."""
    return StackError(
        f"cannot {what}: no answer in {seconds:.0f} s",
        hint="find out with docker info and ./ops/stack status what hangs, then run this again",
        code=FAILURE,
    )


def output_lines(
    stream: IO[str], on_silence: Callable[[float], None], heartbeat_seconds: float = HEARTBEAT_SECONDS
) -> Iterator[str]:
    """Yield the lines of `stream` until it ends, and call `on_silence` while none come.

    Args:
        stream: The child's output.
        on_silence: Takes the seconds since the last line; its exceptions end the iteration.
        heartbeat_seconds: How often `on_silence` is called during a silence.
    """
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        for line in stream:
            lines.put(line.rstrip())
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    last_line = time.monotonic()
    while True:
        try:
            line = lines.get(timeout=heartbeat_seconds)
        except queue.Empty:
            on_silence(time.monotonic() - last_line)
            continue
        if line is None:
            return
        last_line = time.monotonic()
        yield line


def run_with_progress(
    arguments: Sequence[str],
    progress: Callable[[str], str | None],
    report: Callable[[str], None],
    environment: Mapping[str, str] | None = None,
    files: Collection[int] = (),
) -> None:
    """Run a command to its end and report its progress.

    Args:
        arguments: The command.
        progress: Turns a line of output (stdout or stderr) into a line to show, or None.
        report: Shows a line.
        environment: The child's whole environment; None: this process's.
        files: Open files that the child gets too.

    Raises:
        ChildFailedError: The command exited with a status other than 0.
    """
    started = time.monotonic()
    last_report = started - REPORT_INTERVAL_SECONDS
    reported = step = name = Path(arguments[0]).name
    tail: collections.deque[str] = collections.deque(maxlen=KEPT_LINES)

    def report_duration(_: float) -> None:
        nonlocal last_report
        last_report = time.monotonic()
        report(f"{step} … {last_report - started:.0f} s")

    with subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        pass_fds=files,
    ) as child:
        assert child.stdout is not None  # noqa: S101 (PIPE above)
        for line in output_lines(child.stdout, report_duration, HEARTBEAT_SECONDS):
            tail.append(line)
            step = progress(line) or step
            silent_seconds = time.monotonic() - last_report
            if step != reported and silent_seconds >= REPORT_INTERVAL_SECONDS:
                report(step)
                reported, last_report = step, time.monotonic()
            elif silent_seconds >= HEARTBEAT_SECONDS:
                report_duration(silent_seconds)
    if child.returncode != 0:
        raise ChildFailedError(" ".join([name, *arguments[1:2]]), child.returncode, tail)
