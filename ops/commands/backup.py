"""`backup`: make a backup, and list the backups that exist."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ops import backup_config, settings_file
from ops.backup import creation, repository
from ops.errors import StackError, when_interrupted
from ops.lock import stack_lock
from ops.project import current_project
from ops.screen import console, report

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ops.backup.sets import Contents
    from ops.project import Project


class Action(StrEnum):
    """What `backup` does."""

    LIST = "list"
    NOW = "now"


def backup(
    action: Annotated[Action, typer.Argument(help="`now` makes a backup, `list` shows all.")] = Action.LIST,
    full: Annotated[bool, typer.Option("--full", help="With `now`: copy everything, not only what changed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With `list`: one JSON object instead of a table.")] = False,
) -> None:
    """Make a backup of the database and the files now, or list the backups.

    The profile `backup` makes them on schedule. Each has an id for ./ops/stack restore.

    Example: ./ops/stack backup now
    """
    project = current_project()
    settings = settings_file.read(project)
    if not settings.get("BACKUP_IMAGE"):
        raise StackError(
            "cannot use backups: the profile backup is off",
            where=project.shown(project.env_file),
            hint="run ./ops/stack up --profile backup, with your other profiles",
        )
    if action is Action.NOW:
        with when_interrupted("run ./ops/stack backup now again"), stack_lock(project, "backup", report):
            report(f"backup {creation.make(settings, report, is_full=full)}: complete")
    else:
        show(project, settings, as_json=as_json)


def show(project: Project, settings: Mapping[str, str], *, as_json: bool) -> None:
    """Print the backups."""
    contents = repository.contents(repository.of_stack(project, settings, settings["BACKUP_IMAGE"]))
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in contents.sets], indent=2, default=datetime.isoformat))
        return
    table = Table("id", "kind", "complete (UTC)", "database", "in the repository", "files", title="backups")
    for each in contents.sets:
        kind = f"{each.kind}, damaged pages" if each.is_damaged else each.kind
        sizes = (f"{each.size / 2**20:.0f} MiB", f"{each.stored / 2**20:.0f} MiB")
        table.add_row(
            each.label, kind, f"{each.stopped:%Y-%m-%d %H:%M:%S}", *sizes, "yes" if each.files else "[red]no[/]"
        )
    console.print(table)
    console.print(restorable(contents, settings))


def restorable(contents: Contents, settings: Mapping[str, str]) -> str:
    """Return which times a restore reaches."""
    seconds = backup_config.setting(settings, "BACKUP_WAL_SECONDS")
    oldest = contents.sets[0].stopped.astimezone(UTC)
    return f"A restore reaches each time from {oldest:%Y-%m-%d %H:%M:%S} UTC until {seconds} s ago."
