"""The silence of alerts while a command stops or loads components on purpose."""

from __future__ import annotations

import getpass
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from ops import settings_file
from ops.clients import alertmanager
from ops.clients.prometheus import is_settled
from ops.errors import StackError
from ops.services import OBSERVABILITY
from ops.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import timedelta

SEVERITIES: Final = ("page", "ticket")
SETTLE_SECONDS = 300.0


@contextmanager
def silenced_alerts(
    settings: Mapping[str, str], longest: timedelta, command: str, report: Callable[[str], None]
) -> Iterator[None]:
    """Silence all alerts for the duration of the block; an alert that still fires afterwards is sent.

    Args:
        settings: Of .env.
        longest: When the silence ends by itself, also after a power failure in the block.
        command: The command, which engineers read as the reason.
        report: Prints a line of progress.

    Raises:
        StackError: No Alertmanager answers; the block was not entered.
    """
    if OBSERVABILITY not in settings_file.profiles(settings):
        yield
        return
    server = alertmanager.any_that_answers(alertmanager.both(settings))
    start = datetime.now(tz=UTC)
    silences = [
        server.silence({"severity": severity}, start, start + longest, getpass.getuser(), f"./ops/stack {command}")
        for severity in SEVERITIES
    ]
    report(f"alerts are silenced until the end of {command}, at most until {start + longest:%Y-%m-%d %H:%M} UTC")
    try:
        yield
    finally:
        try:
            wait(lambda: is_settled(settings), SETTLE_SECONDS, "no alert fires any more", report)
        except StackError as error:
            report(error.what)
        finally:
            expire(settings, silences, report)


def expire(settings: Mapping[str, str], silences: list[str], report: Callable[[str], None]) -> None:
    """Expire silences; one that cannot be reached ends by itself."""
    for silence in silences:
        try:
            alertmanager.any_that_answers(alertmanager.both(settings)).end_silence(silence)
        except StackError as error:
            report(f"the silence {silence} stays until its end: {error.what}")
