"""Lines that are too long to be kept or shown as they are."""

from __future__ import annotations

import json
from typing import Any


def cut(head: bytes, total: int) -> bytes:
    """Return a log line's beginning as a line of its own that says how much is missing.

    Args:
        head: the line's first bytes.
        total: the bytes of the whole line.

    Returns:
        A JSON object where the line was one that was cut inside its text, as a task's log has them; else text.
    """
    note = f" [cut: the line has {total:,} bytes]"
    # A character, an escape or a surrogate pair may be cut through: its rest is at most 12 bytes long.
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
