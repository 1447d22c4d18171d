"""A git repository as an operator has it."""

from __future__ import annotations

import subprocess

import pytest


def git(folder, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main")
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """A checkout on the branch main, whose next commit is the tag `new`."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init")
    for version in ("old", "new"):
        (folder / "version").write_text(version)
        git(folder, "add", ".")
        git(folder, "commit", "-m", version)
    git(folder, "tag", "new")
    git(folder, "reset", "--hard", "HEAD~1")
    return folder
