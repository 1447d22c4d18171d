"""The versions in compose/images.env, the only place they are written."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# "v0.30.0", "0.159.0" and "v1.69.0-alpine".
NUMBERS = re.compile(r"\d+(?:\.\d+)+")


def read_images_env(root: Path) -> dict[str, str]:
    """Return the versions in compose/images.env, by key."""
    lines = (root / "compose/images.env").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.lstrip().startswith("#"))
    return {key.strip(): value.strip() for key, value in pairs}


def software_version(reference: str) -> str:
    """Return the version in an image's tag as numbers with dots: `0.30.0` for `v0.30.0-alpine`.

    Raises:
        ValueError: The reference has no tag with a version.
    """
    match = NUMBERS.search(reference.rpartition(":")[2])
    if not match:
        raise ValueError(f"cannot read the version of {reference}: its tag has no version")
    return match.group()
