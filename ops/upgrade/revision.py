"""Versions of the project: the commits of its git repository, in the operator's checkout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ops import time_limits
from ops.child_process import run_limited
from ops.errors import FAILURE, StackError

if TYPE_CHECKING:
    from pathlib import Path

COMMAND_FILE: Final = "ops/commands/upgrade.py"


def git(root: Path, *arguments: str) -> str:
    """Return the output of a git command in a checkout.

    Raises:
        StackError: The command failed, whose last lines the error quotes, or has not ended in time.
    """
    try:
        result = run_limited(["git", "-C", str(root), *arguments], time_limits.COMMAND, f"run git {arguments[0]}")
    except FileNotFoundError:
        raise StackError("cannot read the versions: git is not installed", hint="install git") from None
    if result.returncode != 0:
        reason = (result.stderr.strip() or "no output").splitlines()
        raise StackError(f"cannot run git {arguments[0]}: {'; '.join(reason[-3:])}", where=str(root), code=FAILURE)
    return result.stdout.strip()


def current(root: Path) -> str:
    """Return the branch of a checkout, or its commit if it is on none."""
    branch = git(root, "branch", "--show-current")
    return branch or git(root, "rev-parse", "HEAD")


def commit_of(root: Path, reference: str) -> str:
    """Return the commit of a tag, branch or commit that has this command.

    Raises:
        StackError: The repository does not have it, or it is too old.
    """
    try:
        commit = git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{reference}^{{commit}}")
    except StackError as error:
        raise StackError(
            f"cannot upgrade to {reference}: the repository has no such version",
            where=str(root),
            hint="run git fetch --tags, then git tag to list the versions",
        ) from error
    try:
        git(root, "cat-file", "-e", f"{commit}:{COMMAND_FILE}")
    except StackError as error:
        raise StackError(
            f"cannot upgrade to {reference}: that version has no upgrade",
            where=commit,
            hint=f"check it out and run ./ops/stack up: git checkout {reference}",
        ) from error
    return commit


def to_check_out(root: Path, reference: str) -> str:
    """Return what `switch` needs for a reference of `commit_of`: a branch itself, of all else the commit."""
    is_branch = bool(git(root, "branch", "--list", "--format=%(refname:short)", reference))
    return reference if is_branch else git(root, "rev-parse", f"{reference}^{{commit}}")


def refuse_changes(root: Path, commit: str) -> None:
    """Refuse a checkout with changed files of the project, or with own files that another version would overwrite.

    Raises:
        StackError: The error names the files.
    """
    if changed := git(root, "status", "--porcelain", "--untracked-files=no"):
        raise StackError(
            "cannot upgrade: files of the project are changed, and another version would not have the changes",
            where=", ".join(line[2:].strip() for line in changed.splitlines()),
            hint="commit them and rebase them onto the new version, or run git stash",
        )
    try:
        git(root, "read-tree", "--dry-run", "-m", "-u", "HEAD", commit)
    except StackError as error:
        raise StackError(
            f"cannot upgrade: the new version would overwrite files of yours: {error.what}",
            where=str(root),
            hint="move these files away",
        ) from error


def add_worktree(root: Path, commit: str, folder: Path) -> None:
    """Check a version out into a folder of its own; one that an earlier upgrade left there is replaced."""
    remove_worktree(root, folder)
    git(root, "worktree", "add", "--detach", "--quiet", str(folder), commit)


def remove_worktree(root: Path, folder: Path) -> None:
    """Remove a folder of `add_worktree`, if it exists."""
    if folder.exists():
        git(root, "worktree", "remove", "--force", str(folder))
    git(root, "worktree", "prune")


def switch(root: Path, version: str) -> None:
    """Check a branch or commit out; files that git does not know stay."""
    if version not in (current(root), git(root, "rev-parse", "HEAD")):
        git(root, "checkout", "--quiet", version)
