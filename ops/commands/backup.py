"""`backup`: make a backup, list the backups that exist, and verify one."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ops import backup_config, backup_storage, compose, preflight, settings_file
from ops.backup import creation, repository, saved_files, service_page, verification
from ops.backup.sets import choose
from ops.deployment import obtain_images
from ops.errors import FAILURE, StackError, when_interrupted
from ops.lock import stack_lock
from ops.project import Project, current_project
from ops.screen import console, escape, heading, report
from ops.storage_option import FromStorage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ops.backup.sets import BackupSet, Contents
    from ops.backup.verification import Result


class Action(StrEnum):
    """What `backup` does."""

    LIST = "list"
    NOW = "now"
    VERIFY = "verify"


def backup(
    action: Annotated[
        Action, typer.Argument(help="`now` makes a backup, `list` shows all, `verify` proves that one can be restored.")
    ] = Action.LIST,
    full: Annotated[bool, typer.Option("--full", help="With `now`: copy everything, not only what changed.")] = False,
    new: Annotated[
        bool, typer.Option("--new", help="With `now`: start a new repository where former backups are gone.")
    ] = False,
    label: Annotated[
        str | None,
        typer.Option("--backup", metavar="ID", help="With `verify`: this one, not the newest.", show_default=False),
    ] = None,
    storage: FromStorage = None,
    as_json: Annotated[bool, typer.Option("--json", help="With `list`: one JSON object instead of a table.")] = False,
) -> None:
    """Make a backup of the database and the files now, list the backups, or verify one.

    The profile `backup` makes them on schedule. Each has an id for ./ops/stack restore. `verify` restores a backup into
    a throw-away stack beside the running one, checks the database, runs the canary and the pipeline, and removes it.

    Example: ./ops/stack backup verify
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
            report(f"backup {creation.make(settings, report, is_full=full, is_new=new)}: complete")
    elif action is Action.VERIFY:
        # A lock of its own: the running stack is not changed, and may be meanwhile.
        stacks = Project(project.root, project.state / "stacks")
        with when_interrupted("run ./ops/stack backup verify again"), stack_lock(stacks, "backup verify", report):
            verify(project, settings, label, storage)
    else:
        show(project, settings, as_json=as_json)


def verify(project: Project, settings: Mapping[str, str], label: str | None, storage: str | None) -> None:
    """Verify a backup in a throw-away stack, and record the result.

    Raises:
        StackError: A pre-flight check, or a check of the backup, failed.
    """
    heading("Pre-flight: no impact yet")
    preflight.check_docker()
    source = repository.of_stack(project, settings, settings["BACKUP_IMAGE"])
    contents = repository.contents(source.only(storage) if storage in source.storages else source)
    for name, problem in contents.problems.items():
        report(f"{name}: {problem}")
    chosen = choose(contents.sets, None, label, datetime.now(UTC), storage)
    source = source.only(chosen.storage)
    if not chosen.files:
        raise StackError(f"cannot verify {chosen.label}: it has no files", hint="run ./ops/stack backup now")
    saved = {**settings, **saved_files.saved_settings(source, chosen.files)}
    planned = verification.prepare(project, saved, source, chosen, report)
    images = obtain_images(project.root, settings_file.profiles(planned.settings))

    heading(f"Verifying {chosen.label} in {chosen.storage}")
    with verification.removed_afterwards(planned):
        results = verification.verify(planned, images)
    console.print(table_of(results))
    if results[-1].check == verification.START:  # a step that fails is the last one
        raise StackError(
            f"cannot verify {chosen.label}: the throw-away stack did not start, so nothing is recorded",
            hint="fix the cause in the table, then run this again",
            code=FAILURE,
        )
    problems = [f"{each.check}: {problem.splitlines()[0]}" for each in results for problem in each.problems]
    try:
        creation.record(settings, chosen, problems)
    except StackError as error:
        report(f"the result is not recorded: {error.what}")
    if problems:
        raise StackError(
            f"cannot rely on the backup {chosen.label}: {len(problems)} problems",
            hint="read alerting/runbooks/BackupVerificationFailed.md",
            code=FAILURE,
        )


def table_of(results: list[Result]) -> Table:
    """Return the results as a table."""
    table = Table("check", "result", "seconds", title="verification")
    for each in results:
        table.add_row(
            each.check,
            f"[red]{escape('; '.join(each.problems))}[/]" if each.problems else escape(each.found),
            f"{each.seconds:.1f}",
        )
    return table


def verified(each: BackupSet) -> str:
    """Return when a restore of a backup was verified, for the table."""
    if each.verification is None:
        return "no"
    return "[red]failed[/]" if each.verification.problems else f"{each.verification.at:%Y-%m-%d %H:%M}"


def show(project: Project, settings: Mapping[str, str], *, as_json: bool) -> None:
    """Print the backups, and why none is added to a storage.

    Raises:
        StackError: No storage has a backup that can be read.
    """
    problems = service_page.problems(compose.instances(settings["COMPOSE_PROJECT_NAME"]))
    try:
        contents = repository.contents(repository.of_stack(project, settings, settings["BACKUP_IMAGE"]))
    except StackError as error:
        if error.where or not problems:
            raise
        reason = "; ".join(f"{storage}: {problem}" for storage, problem in problems.items())
        where, hint = backup_storage.advice(reason)
        raise StackError(f"{error.what}; {reason}", where=where, hint=hint or error.hint) from error
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in contents.sets], indent=2, default=datetime.isoformat))
        return
    columns = ("id", "storage", "kind", "complete (UTC)", "database", "in the repository", "files", "verified")
    table = Table(*columns, title="backups")
    for each in contents.sets:
        kind = f"{each.kind}, damaged pages" if each.is_damaged else each.kind
        sizes = (f"{each.size / 2**20:.0f} MiB", f"{each.stored / 2**20:.0f} MiB")
        stopped, files = f"{each.stopped:%Y-%m-%d %H:%M:%S}", "yes" if each.files else "[red]no[/]"
        table.add_row(each.label, each.storage, kind, stopped, *sizes, files, verified(each))
    console.print(table)
    console.print(restorable(contents, settings))
    for storage, problem in (problems | dict(contents.problems)).items():
        hint = backup_storage.advice(problem)[1]
        console.print(f"[red]{storage}: {escape(problem)}[/]{f'; hint: {hint}' if hint else ''}")


def restorable(contents: Contents, settings: Mapping[str, str]) -> str:
    """Return which times a restore reaches."""
    seconds = backup_config.setting(settings, "BACKUP_WAL_SECONDS")
    oldest = contents.sets[0].stopped.astimezone(UTC)
    return f"A restore reaches each time from {oldest:%Y-%m-%d %H:%M:%S} UTC until {seconds} s ago."
