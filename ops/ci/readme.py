"""The parts of README.md that are made of what was measured, each between two comments with its name."""

from __future__ import annotations

from typing import Final

from ops.project import ROOT

README: Final = ROOT / "README.md"


def marks(name: str) -> tuple[str, str]:
    """The lines before and after a part."""
    return f"<!-- {name} -->\n", f"<!-- /{name} -->\n"


def filled(text: str, name: str, content: str) -> str:
    """A README with this as its part of that name.

    Raises:
        ValueError: It has no such part.
    """
    begin, end = marks(name)
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}{content}{end}{after}"


def fill(name: str, content: str) -> None:
    """Writes a part of the README."""
    README.write_text(filled(README.read_text(encoding="utf-8"), name, content), encoding="utf-8")
