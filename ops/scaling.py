"""Another number of instances of a service, while it works: what `scale` does, under its caller's lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ops import compose, container_limits, environment_file, generated_files, preflight
from ops.project import replicas_variable
from ops.rollout import roll_out

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ops.project import Project


def scale(project: Project, wanted: Mapping[str, int], report: Callable[[str], None]) -> None:
    """Keeps the numbers in .env, and waits until there are so many, all of them healthy.

    Args:
        project: The stack, which runs.
        wanted: How many instances of which services.
        report: Shows a line to people.

    Raises:
        StackError: They do not become so many; the numbers are kept.
    """
    settings = environment_file.read(project)
    new = {replicas_variable(service): str(count) for service, count in wanted.items()}
    container_limits.check_machine(project, settings | new, preflight.machine_memory())
    # No alert is to miss what is not there yet, or is no longer wanted.
    fewer = {key: str(min(int(count), int(settings[key]))) for key, count in new.items()}
    for count in (fewer, new):
        environment_file.write(project, settings | new)
        generated_files.write(project, settings | count)
        generated_files.load(project, settings["COMPOSE_PROJECT_NAME"])
        if count is fewer:
            # Only these: `migrate`, which everything waits for, need not run again.
            with compose.without_leftover_volumes(settings["COMPOSE_PROJECT_NAME"]):
                roll_out(project, report, "--no-deps", "--no-recreate", *wanted)
