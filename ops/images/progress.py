"""The states of several images at once, as lines. It needs only the standard library: workflows use it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Reporter = Callable[[str], None]
    """Takes the new state of one image, such as `pulling, 3 of 10 layers`; called from several threads."""


class ImageProgress(Protocol):
    """Shows the state of each image that is pulled or built; called from several threads."""

    def expect(self, names: Iterable[str]) -> None:
        """Show these images as waiting."""

    def reporter(self, name: str) -> Reporter:
        """Return what takes the states of this image."""

    def finish(self, name: str, state: str) -> None:
        """Show the last state of an image, such as `ready`."""

    def drop(self, name: str) -> None:
        """Hide the image: it is not needed, or is reported by a note."""

    def note(self, line: str) -> None:
        """Show a line that is about no single image."""


class LineProgress:
    """Each state is a line `redis: pulling, 3 of 10 layers`."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self.report = report
        self.lock = threading.Lock()

    def expect(self, names: Iterable[str]) -> None:
        pass  # no state yet

    def reporter(self, name: str) -> Reporter:
        return lambda state: self.note(f"{name}: {state}")

    def finish(self, name: str, state: str) -> None:
        pass  # the pull or the build has reported its last line

    def drop(self, name: str) -> None:
        pass  # lines stay

    def note(self, line: str) -> None:
        with self.lock:
            self.report(line)
