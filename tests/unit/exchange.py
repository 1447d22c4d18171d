"""The exchange of two paths by another thread, as an attacker does it between a check of a path and its use."""

from __future__ import annotations

import ctypes
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RENAME_EXCHANGE = 2


@contextmanager
def exchanging(first: Path, second: Path) -> Iterator[None]:
    """Exchange two paths without a pause for the duration of the block."""
    libc, stop = ctypes.CDLL(None, use_errno=True), threading.Event()

    def exchange() -> None:
        while not stop.is_set():
            assert libc.renameat2(-100, bytes(first), -100, bytes(second), RENAME_EXCHANGE) == 0

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
