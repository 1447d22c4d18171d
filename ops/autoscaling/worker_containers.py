"""The containers of the service `worker`: added at once, and removed after they have finished their tasks.

A drain takes as long as the worker's tasks, so it does not hold the stack's lock. Until it ends the worker is a
container that compose still counts.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Final

from ops import compose, settings_file
from ops.lock import stack_lock
from ops.observability import generated_config
from ops.rolling import stop_seconds
from ops.services import replicas_variable
from ops.worker_bounds import SERVICE

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Collection, Sequence

    from ops.compose import Instance
    from ops.project import Project

VARIABLE: Final = replicas_variable(SERVICE)
STARTABLE: Final = ("created", "exited")
LOCK_SECONDS: Final = 1.0
"""How long a change waits for another command. The next count is due then, and may want another change."""


class WorkerContainers:
    """The workers of a stack, and the drains that this process has started.

    Args:
        project: The stack.
        report: Prints a line.
    """

    def __init__(self, project: Project, report: Callable[[str], None]) -> None:
        self.project = project
        self.report = report
        self.drains: dict[str, subprocess.Popen[bytes]] = {}

    def follow(self, current: int, workers: int, instances: Sequence[Instance]) -> bool:
        """Write the number of workers to .env, then start and drain workers, so that as many run.

        Args:
            current: The number that .env had.
            workers: The number that there shall be.
            instances: The containers of the service.

        Returns:
            Whether .env has the number; not if an operator has written another one meanwhile, who starts it too.

        Raises:
            StackError: Another command holds the stack's lock, a file cannot be written, or Docker refuses a change.
        """
        if workers == current and not self._has_work(workers, instances):
            return True
        with self._lock():
            # Other commands may have changed both before this one got the lock.
            settings = settings_file.read(self.project)
            if workers != current:
                if settings[VARIABLE] != str(current):
                    return False
                settings[VARIABLE] = str(workers)
                settings_file.write(self.project, settings)
                generated_config.write(self.project, settings)
            name = settings["COMPOSE_PROJECT_NAME"]
            try:
                self._change_containers(name, int(settings[VARIABLE]))
            finally:
                # Once for the number and the containers. Alerts expect the number also if Docker refuses a container.
                generated_config.load(self.project, name)
        return True

    def _change_containers(self, name: str, count: int) -> None:
        instances = compose.instances(name).get(SERVICE, [])
        removed = self._remove_drained(instances)
        instances = [instance for instance in instances if instance.id not in removed]
        staying = self._staying(instances)
        if surplus := last_numbers(staying, len(staying) - count):
            self._drain(surplus)
        else:
            self._start(name, count, instances)

    def _lock(self) -> contextlib.AbstractContextManager[None]:
        return stack_lock(self.project, "autoscale", lambda _: None, LOCK_SECONDS)

    def _staying(self, instances: Sequence[Instance]) -> list[Instance]:
        return [instance for instance in instances if instance.id not in self.drains]

    def _has_work(self, count: int, instances: Sequence[Instance]) -> bool:
        staying = self._staying(instances)
        return (
            len(staying) != count
            or any(instance.state in STARTABLE for instance in staying)
            or any(drain.poll() is not None for drain in self.drains.values())
        )

    def _start(self, name: str, count: int, instances: Sequence[Instance]) -> None:
        """Create the missing workers, and start those that do not run. Whether they become healthy, alerts report.

        Args:
            name: The compose project.
            count: The number of workers that there shall be.
            instances: The containers of the service.
        """
        staying = self._staying(instances)
        if len(staying) < count:
            # Compose counts the workers that are drained. As in ops/scaling.py: --no-deps would create containers that
            # the next `up` recreates.
            scale = f"--scale={SERVICE}={count + len(instances) - len(staying)}"
            compose.run(self.project, lambda _: None, "up", "--no-start", "--no-recreate", scale, SERVICE)
            staying = self._staying(compose.instances(name).get(SERVICE, []))
        if stopped := [instance.id for instance in staying if instance.state in STARTABLE]:
            compose.docker("start", *stopped)
            self.report(f"started: {', '.join(stopped)}")

    def _drain(self, workers: Sequence[Instance]) -> None:
        """Stop workers, without waiting: each takes no new task, and ends with its last one or after its grace."""
        model = compose.config(self.project)
        grace = stop_seconds(model["services"][SERVICE].get("stop_grace_period"))
        for worker in workers:
            # In a session of its own: Ctrl-C ends this process only, and Docker's limit of the drain stays.
            self.drains[worker.id] = subprocess.Popen(
                ["docker", "stop", f"--time={grace}", worker.id],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            self.report(f"draining: {worker.id}, for {grace} s at most")

    def _remove_drained(self, instances: Sequence[Instance]) -> set[str]:
        """Remove the workers that have stopped, and return their ids. Another command may have removed them before."""
        existing = {instance.id for instance in instances}
        removed = set()
        for worker in [worker for worker, drain in self.drains.items() if drain.poll() is not None]:
            status = self.drains.pop(worker).returncode
            if worker not in existing:
                continue
            if status != 0:
                self.report(f"cannot drain {worker}: docker stop failed (exit {status}); the next step tries again")
                continue
            compose.docker("rm", "--volumes", worker)
            self.report(f"drained and removed: {worker}")
            removed.add(worker)
        return removed


def last_numbers(workers: Collection[Instance], count: int) -> list[Instance]:
    """Return as many workers as given, none for a negative number: those that compose would remove, the last ones."""
    return sorted(workers, key=lambda worker: worker.number, reverse=True)[: max(count, 0)]
