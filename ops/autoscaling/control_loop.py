"""The loop of `autoscale`: count the tasks, decide, follow."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ops import compose, settings_file
from ops.autoscaling import task_counts
from ops.autoscaling.decision import Autoscaler
from ops.autoscaling.worker_containers import VARIABLE, WorkerContainers
from ops.errors import StackError
from ops.worker_bounds import CEILING, SCALE_IN_SECONDS, SERVICE, bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ops.project import Project

INTERVAL: Final = 5.0
"""Seconds from one count to the next. A new worker takes some 15 s to its first task: together below 30 s."""


@dataclass(frozen=True)
class Options:
    """What the command line chooses.

    Attributes:
        window: Seconds of lower demand before workers are removed.
        is_dry_run: Whether decisions are only reported.
        settings: Floor and ceiling that .env does not have, for a dry run.
    """

    window: float = SCALE_IN_SECONDS
    is_dry_run: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)


class ControlLoop:
    """One run of `autoscale`.

    Args:
        project: The stack.
        options: Of the command line.
        report: Prints a line.
    """

    def __init__(self, project: Project, options: Options, report: Callable[[str], None]) -> None:
        self.project = project
        self.options = options
        self.report = report
        self.autoscaler = Autoscaler(options.window)
        self.workers = WorkerContainers(project, report)
        self._reported: set[str] = set()

    def run(self) -> None:
        """Take a step every INTERVAL seconds, for as long as the process lives."""
        while True:
            self.step(time.monotonic())
            time.sleep(INTERVAL)

    def step(self, now: float) -> bool:
        """Count, decide, and follow; return whether nothing prevented it. The next step tries again.

        Args:
            now: A clock that only goes forward, in seconds.
        """
        try:
            settings = settings_file.read(self.project) | dict(self.options.settings)
            limits = bounds(settings)
            if limits is None:
                raise no_ceiling()
            by_service = compose.instances(settings["COMPOSE_PROJECT_NAME"])
            demand = task_counts.read(by_service, settings["WORKER_QUEUES"])
        except StackError as error:
            self.autoscaler.forget()
            self._report_once(error.what, error.what)
            return False
        current = int(settings[VARIABLE])
        decision = self.autoscaler.decide(now, limits, current, demand)
        is_settled = decision.workers == current
        if not is_settled:
            change = f"{current} -> {decision.workers}"
            counts = f"{demand.queued} queued, {demand.running} running"
            self._report_once(change, f"workers {change}: {counts}; {decision.reason}")
        if not self.options.is_dry_run:
            try:
                is_settled = self.workers.follow(current, decision.workers, by_service.get(SERVICE, []))
            except StackError as error:
                self._report_once(error.what, error.what)
                return False
        if is_settled:
            self._reported.clear()
        return True

    def _report_once(self, key: str, text: str) -> None:
        """Report a line, once for as long as nothing is done about it."""
        if key not in self._reported:
            self._reported.add(key)
            self.report(text)


def no_ceiling() -> StackError:
    """Return the error of settings without a ceiling."""
    return StackError(
        f"cannot scale the workers: {CEILING} is not set", hint="run ./ops/stack autoscale --floor 2 --ceiling 4"
    )
