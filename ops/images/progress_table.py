"""The states of several images at once: a table on a terminal, lines elsewhere."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.live import Live
from rich.table import Table
from rich.text import Text

from ops import screen
from ops.images.progress import LineProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rich.console import Console

    from ops.images.progress import ImageProgress, Reporter

REFRESHES_PER_SECOND = 4


@contextmanager
def image_progress(report: Callable[[str], None], console: Console = screen.console) -> Iterator[ImageProgress]:
    """Yield a table where `console` is a terminal, otherwise lines through `report`.

    Above the table other lines may be printed on the same console, from any thread.
    """
    if not console.is_terminal or console.is_dumb_terminal:
        yield LineProgress(report)
        return
    table = TableProgress(console, report)
    try:
        yield table
    finally:
        table.close()


@dataclass(frozen=True)
class Row:
    """One image; times are `time.monotonic()`."""

    state: str = "waiting"
    started: float | None = None
    finished: float | None = None


class TableProgress:
    """A table with a line an image, redrawn in place until all of its images are finished."""

    def __init__(self, console: Console, report: Callable[[str], None]) -> None:
        self.console = console
        self.note = report
        # Rows are replaced, never changed: the thread that draws needs no lock.
        self.rows: dict[str, Row] = {}
        self.live: Live | None = None
        self.lock = threading.Lock()

    def expect(self, names: Iterable[str]) -> None:
        with self.lock:
            self.rows |= {name: Row() for name in names if name not in self.rows}
            self.show()

    def reporter(self, name: str) -> Reporter:
        def update(state: str) -> None:
            with self.lock:
                row = self.rows.get(name, Row())
                started = time.monotonic() if row.started is None else row.started
                self.rows[name] = Row(state, started)
                self.show()

        return update

    def finish(self, name: str, state: str) -> None:
        """Set the last state of an image; the table stays as it is once all images have theirs."""
        with self.lock:
            row = self.rows.get(name, Row())
            self.rows[name] = replace(row, state=state, finished=time.monotonic())
            self.stop_if_finished()

    def drop(self, name: str) -> None:
        with self.lock:
            self.rows = {other: row for other, row in self.rows.items() if other != name}
            self.stop_if_finished()

    def close(self) -> None:
        with self.lock:
            self.stop()

    def show(self) -> None:
        if self.rows and self.live is None:
            # A stopped Live cannot go on: each table has its own.
            self.live = Live(console=self.console, get_renderable=self.render, refresh_per_second=REFRESHES_PER_SECOND)
            self.live.start()

    def stop_if_finished(self) -> None:
        if all(row.finished for row in self.rows.values()):
            self.stop()

    def stop(self) -> None:
        """Draw for the last time, so that the seconds stay on the screen, and remove the images from the table."""
        if self.live:
            self.live.transient = not self.rows
            self.live.stop()
            self.live = None
        self.rows = {}

    def render(self) -> Table:
        table = Table(box=None, pad_edge=False, expand=True)
        table.add_column("image", no_wrap=True)
        table.add_column("state", no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_column("seconds", no_wrap=True, justify="right")
        now = time.monotonic()
        for name, row in self.rows.copy().items():
            seconds = "" if row.started is None else f"{(row.finished or now) - row.started:.0f}"
            table.add_row(name, Text(row.state, style="green" if row.finished else ""), seconds)
        return table
