"""The versions in compose/images.env, the only place they are written."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# "v0.30.0", "0.159.0" and "v1.69.0-alpine".
NUMBERS = re.compile(r"\d+(?:\.\d+)+")


def read_images_env(root: Path) -> dict[str, str]:
    """Return the versions in compose/images.env, by key."""
    lines = (root / "compose/images.env").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.lstrip().startswith("#"))
    return {key.strip(): value.strip() for key, value in pairs}


def known_faults(root: Path, references: Mapping[str, str]) -> list[str]:
    """Return a line about each image that is older than its minimum in compose/minimum-versions.txt.

    Args:
        root: The repository.
        references: Official images by key. One of another series, such as another major version, is not compared.
    """
    lines = (root / "compose/minimum-versions.txt").read_text(encoding="utf-8").splitlines()
    faults = []
    for key, minimum, url in (line.split() for line in lines if line and not line.startswith("#")):
        used, fixed = numbers(references.get(key, "")), numbers(minimum)
        if used[:-1] == fixed[:-1] and used < fixed:
            faults.append(f"{references[key]} has a known fault, use {minimum} or later: {url}")
    return faults


def numbers(reference: str) -> tuple[int, ...]:
    """Return the numbers of a version, or of the version in an image's tag; empty without a version."""
    match = NUMBERS.search(repository_and_tag(reference)[1])
    return tuple(map(int, match.group().split("."))) if match else ()


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
