"""What an operator writes to turn an optional feature on: settings in .env, and files in secrets/."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ops.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ops.project import Project


def read(project: Project, names: Iterable[str]) -> dict[str, str]:
    """Return the text of each of these files that exists."""
    paths = {name: project.secrets / name for name in names}
    return {name: path.read_text(encoding="utf-8").strip() for name, path in paths.items() if path.exists()}


def require_settings(
    project: Project, settings: Mapping[str, str], names: Iterable[str], purpose: str, otherwise: str
) -> None:
    """Refuse a feature that lacks a setting.

    Args:
        project: The stack.
        settings: Of .env.
        names: The settings that it needs.
        purpose: What cannot be done without them, such as `store backups in S3`.
        otherwise: How to do without the feature, as an imperative.

    Raises:
        StackError: The error names the first that is empty.
    """
    for name in names:
        if not settings.get(name):
            raise StackError(
                f"cannot {purpose}: {name} is empty",
                where=project.shown(project.env_file),
                hint=f"set {name}, or {otherwise}",
            )


def require_secret(project: Project, name: str, purpose: str) -> None:
    """Refuse a feature that lacks a file.

    Raises:
        StackError: The file is missing.
    """
    path = project.secrets / name
    if not path.exists():
        where = project.shown(path)
        raise StackError(
            f"cannot {purpose}: the secret {name} is missing",
            where=where,
            hint=f"write it into {where} with an editor, then run: chmod 600 {where}",
        )
