"""The parts of READMEs that are generated from recorded results, each between two comments with its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ops.project import ROOT

if TYPE_CHECKING:
    from pathlib import Path

README: Final = ROOT / "README.md"


def marks(name: str) -> tuple[str, str]:
    """Return the comment lines before and after a part."""
    return f"<!-- {name} -->\n", f"<!-- /{name} -->\n"


def filled(text: str, name: str, content: str) -> str:
    """Return the README's text with new content in a part.

    Raises:
        ValueError: The text has no such part.
    """
    begin, end = marks(name)
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}{content}{end}{after}"


def fill(name: str, content: str, page: Path | None = None) -> None:
    """Write new content into a part of a page, README.md by default."""
    page = page or README
    page.write_text(filled(page.read_text(encoding="utf-8"), name, content), encoding="utf-8")
