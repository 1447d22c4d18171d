"""What a rotation refuses before it changes anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ops import compose, rolling, rotation_state, secrets_store, token_keys
from ops.errors import StackError
from ops.settings_file import has_own_data
from ops.status import is_ready, service_statuses
from ops.upgrade import journal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from ops.project import Project


def unready_services(project: Project) -> list[str]:
    """Return the services of which a container is missing or unhealthy."""
    return [service["name"] for service in service_statuses(compose.config(project)) if not is_ready(service)]


def start_interrupted(project: Project, report: Callable[[str], None]) -> None:
    """Start what a rotation stopped, or was about to start, when it was interrupted.

    Raises:
        StackError: A service does not become healthy.
    """
    is_interrupted = any(step != "wait" for step in rotation_state.read(project).steps.values())
    if is_interrupted and (unready := unready_services(project)):
        report("starting what the interrupted rotation stopped")
        rolling.start_missing(project, unready, report)


def refuse_unready(project: Project) -> None:
    """Refuse a rotation, or its continuation, while something else is unfinished or unhealthy.

    Raises:
        StackError: The error names the reason.
    """
    journal.refuse_unfinished(project, "rotate")
    if unready := unready_services(project):
        raise StackError(
            f"cannot rotate secrets: not every service is healthy ({', '.join(unready)})",
            hint="run ./ops/stack status, then ./ops/stack up to start what is missing",
        )


def refuse_new(project: Project, settings: Mapping[str, str], names: Collection[str]) -> None:
    """Refuse the rotation of these secrets where the stack differs from its files, or a secret is not usable.

    Args:
        project: The stack.
        settings: Of .env.
        names: The secrets, whose files may have been edited.

    Raises:
        StackError: The error names the reason.
    """
    steps = rotation_state.read(project).steps
    if waiting := [name for name in names if name in steps]:
        raise StackError(
            f"cannot rotate {waiting[0]}: its last rotation waits until the tokens of the former key have expired",
            hint="name other secrets, or run this again later: ./ops/stack rotate --list shows what waits",
        )
    if token_keys.TASKS in names and token_keys.former(project):
        raise StackError(
            f"cannot rotate {token_keys.TASKS}: tokens of the former version's secret are still valid",
            where=project.shown(project.secrets / token_keys.FORMER),
            hint="run ./ops/stack up in an hour, then this again",
        )
    files = secrets_store.generated_values(project)
    for name in names:
        secrets_store.check_file(project, project.secrets / name)
    if has_own_data(settings):
        rotation_state.refuse_edited(project, files, but={*names, *rotation_state.EDITABLE})
    edited = rotation_state.edited(project, files)
    model = compose.config(project)
    since = secrets_store.mounted_since(project)
    if (
        not set(edited).issubset(names)
        or not (edited or secrets_store.are_current(project, settings))
        or compose.outdated(project)
        or rolling.with_old_secrets(model, compose.instances(model["name"]), since)
    ):
        raise StackError(
            "cannot rotate secrets: settings or secrets have changed since the last up",
            hint="run ./ops/stack up first",
        )
