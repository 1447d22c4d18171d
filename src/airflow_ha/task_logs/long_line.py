"""Cuts lines that are too long to store or show."""

from __future__ import annotations

import json
from typing import Any


def cut(head: bytes, total: int) -> bytes:
    """Return the beginning of a log line, followed by a note with the line's size.

    Args:
        head: the line's first bytes.
        total: the size of the full line in bytes.

    Returns:
        A JSON object if the line is a JSON object that is cut inside a string, as in task logs; otherwise text.
    """
    note = f" [cut: the line has {total:,} bytes]"
    # The cut may be inside a character, an escape or a surrogate pair: at most 12 bytes to drop.
    for dropped in range(13):
        text = head[: len(head) - dropped].decode(errors="ignore") if head.startswith(b"{") else ""
        try:
            record: dict[str, Any] = json.loads(f'{text}"}}')
        except ValueError:
            continue
        name, value = next(reversed(record.items()))
        if isinstance(value, str):
            return json.dumps({**record, name: value + note}).encode()
    return head.decode(errors="replace").encode() + note.encode()
