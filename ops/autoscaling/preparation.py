"""What a stack needs before its workers are scaled: floor and ceiling in .env, and a parallelism for the ceiling."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ops import compose, container_limits, preflight, rolling, setting_checks, settings_file, worker_slots
from ops.autoscaling.control_loop import no_ceiling
from ops.observability import generated_config
from ops.worker_bounds import bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ops.project import Project


def check(project: Project, settings: Mapping[str, str]) -> None:
    """Refuse a floor above the ceiling, no ceiling, or one whose workers need more memory than the machine has.

    Args:
        project: The stack.
        settings: Of .env, with the chosen ones over them.

    Raises:
        StackError: The error names the setting.
    """
    if bounds(settings) is None:
        raise no_ceiling()
    if problem := setting_checks.bounds_problem(settings):
        raise settings_file.refusal(settings, project.shown(project.env_file), {}, [problem])
    container_limits.check_machine(project, settings, preflight.machine_memory())


def prepare(project: Project, chosen: Mapping[str, str], report: Callable[[str], None]) -> None:
    """Write the chosen settings, under the caller's lock; replace the schedulers if they need more parallelism.

    Args:
        project: A running stack.
        chosen: Floor and ceiling, where the command line names them.
        report: Prints a line of progress.

    Raises:
        StackError: The settings are not valid, the stack does not run, or a new scheduler does not become healthy.
    """
    settings = compose.running_settings(project) | dict(chosen)
    check(project, settings)
    settings_file.write(project, settings)
    if raised := worker_slots.raised_parallelism(compose.config(project), settings):
        settings |= raised
        settings_file.write(project, settings)
        report(f"PARALLELISM={raised['PARALLELISM']}: the schedulers are replaced, one after the other")
        rolling.replace_outdated(project, report, ["scheduler"])
    generated_config.write(project, settings)
    generated_config.load(project, settings["COMPOSE_PROJECT_NAME"])
