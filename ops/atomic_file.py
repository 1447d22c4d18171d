"""Atomic writes of files: a reader gets the old or the new content, never a part."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def write_atomically(path: Path, text: str, mode: int | None = None) -> None:
    """Write a file beside its target, then replace the target.

    Args:
        path: The target; its folder exists.
        text: The content, written as UTF-8.
        mode: The file's permissions from its first byte on; None for 0666 without the bits of the umask.

    Raises:
        OSError: This user cannot write there; the target is unchanged.
    """
    part = path.with_name(f"{path.name}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666 if mode is None else mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        if mode is not None:
            # The umask narrows the mode of open(), and a file left by an interrupted write keeps its own.
            os.fchmod(descriptor, mode)
        file.write(text)
    part.replace(path)
