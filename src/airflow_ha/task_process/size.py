"""Sizes in settings, such as `512m` or `10g`, and in messages."""

from __future__ import annotations

import re
from typing import Final

from airflow_ha.setting_error import SettingError

UNITS: Final = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def size(text: str) -> int | None:
    """Return a setting's size in bytes; None if it is empty.

    Args:
        text: A number of bytes, or a number with one of UNITS as in Docker (`2g`, `512M`).

    Raises:
        SettingError: The text is not a size.
    """
    if not text.strip():
        return None
    parts = re.fullmatch(r"(\d+)([bkmgt]?)b?", text.strip().lower())
    if parts is None:
        raise SettingError(f"cannot read {text!r}: not a size such as 512m or 2g")
    return int(parts[1]) * UNITS[parts[2] or "b"]


def shown(number: float) -> str:
    """Return a number of bytes in a readable form, for example `812 MiB`."""
    for unit in ("bytes", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"
