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


def repository_and_tag(reference: str) -> tuple[str, str]:
    """Return the two parts of a reference, without the digest that may follow the tag (`name:tag@sha256:…`)."""
    repository, _, tag = reference.partition("@")[0].rpartition(":")
    return repository, tag


def software_version(reference: str) -> str:
    """Return the version in an image's tag as numbers with dots: `0.30.0` for `v0.30.0-alpine`.

    Raises:
        ValueError: The reference has no tag with a version.
    """
    match = NUMBERS.search(repository_and_tag(reference)[1])
    if not match:
        raise ValueError(f"cannot read the version of {reference}: its tag has no version")
    return match.group()
