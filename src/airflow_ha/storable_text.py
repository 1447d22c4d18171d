"""Text of errors that Postgres can store."""

from __future__ import annotations

from typing import Final

MAX_CHARACTERS: Final = 32_000


def storable_text(text: str) -> str:
    """Return the text with characters that Postgres or UTF-8 refuse escaped, and long text cut in the middle."""
    if len(text) > MAX_CHARACTERS:
        half = MAX_CHARACTERS // 2
        text = f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")
