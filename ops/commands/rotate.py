"""`rotate`: replace secrets by new ones while the stack runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ops import compose, rotation_state, secret_ages, secrets_store
from ops.errors import StackError, when_interrupted
from ops.lock import stack_lock
from ops.project import current_project
from ops.rotation import before, rotated_secrets, steps
from ops.rotation.servers import Servers
from ops.screen import heading, report
from ops.status_tables import print_secret_ages

if TYPE_CHECKING:
    from ops.project import Project


def rotate(
    name: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Secrets to rotate, by their file's name.", show_default=False),
    ] = None,
    all_of_them: Annotated[bool, typer.Option("--all", help="Rotate every secret that can be.")] = False,
    finish: Annotated[
        bool, typer.Option("--finish", help="Only finish what is unfinished: interrupted, or due by now.")
    ] = False,
    as_list: Annotated[bool, typer.Option("--list", help="Show every secret with its age; change nothing.")] = False,
) -> None:
    """Replace secrets by new ones while the stack runs; old ones are refused afterwards.

    Servers first accept the old and the new value, then clients change to the new one, then the old one is dropped.
    Containers that read a changed file are replaced one at a time. The next rotate or up continues an interrupted one.
    A file in compose/secrets/ that you edited is taken over: its content is the new value.

    Example: ./ops/stack rotate fernet_key postgres_airflow_password
    """
    project = current_project()
    if as_list or not (name or all_of_them or finish):
        print_secret_ages(secret_ages.ages(project))
        return
    if name and all_of_them:
        raise StackError("cannot use --all with names", hint="leave out one of them")
    hint = "run ./ops/stack rotate --finish to continue; until then old and new secrets are both accepted"
    # A second rotation is refused at once, as well as one beside `up`.
    with when_interrupted(hint), stack_lock(project, "rotate", report, wait_seconds=0.0):
        settings = compose.running_settings(project)
        names = rotated_secrets.chosen(settings, name or [], all_of_them=all_of_them)
        before.start_interrupted(project, report)
        heading("Pre-flight: no impact yet")
        before.refuse_unready(project)
        names = to_begin(project, names, all_of_them=all_of_them)
        servers = Servers(project, settings, report)
        if rotation_state.read(project).steps:
            heading("Finishing the last rotation")
            steps.finish(project, servers, report)
        if names:
            before.refuse_new(project, settings, names)
            heading("Rotating")
            steps.begin(project, names)
            steps.finish(project, servers, report)
        done = [each for each in names if each not in rotation_state.read(project).steps]
        report(f"{len(done)} secrets are rotated; the old ones are refused" if done else "nothing else is to be done")


def to_begin(project: Project, names: list[str], *, all_of_them: bool) -> list[str]:
    """Return the secrets whose rotation is to begin.

    An interrupted rotation is finished instead of being repeated. With --all those that wait are left out.
    """
    unfinished = rotation_state.read(project).steps
    left = {each for each, step in unfinished.items() if step != "wait" or all_of_them}
    rotation_state.note_used_first(project, secrets_store.generated_values(project))
    return [each for each in names if each not in left]
