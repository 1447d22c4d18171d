"""What each service holds at rest, at most under ordinary data tasks on every slot, and after ten thousand tasks."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from ops.bench import cgroup_usage
from ops.bench.benches import MEMORY, MIB, RUN_LIMIT, idle, memory
from ops.bench.statistics import by_service
from ops.bench.targets import CONCURRENCY, turns
from ops.bench.workloads import FAN_OUT, ORDINARY, run_to_end
from ops.compose import expected_replicas

if TYPE_CHECKING:
    from collections.abc import Callable

    from ops.bench.statistics import Sample
    from ops.bench.targets import Side
    from ops.project import Project

NAME = "memory-load"
RUNS = 10
HELD_MB = 200
REST_SECONDS = 60.0
"""After a load, for what is given back at once; long enough for each process's periodic work."""
POLL_SECONDS = 0.5
AT_REST = "at rest"
LOADED = f"at most, under tasks of {HELD_MB} MB on all slots"
AFTER = f"after {RUNS * RUN_LIMIT:,} tasks"
SENTENCE = (
    f"Memory of each service at rest, at most while a task on each slot imports scikit-learn and holds {HELD_MB} MB, "
    f"and {REST_SECONDS:.0f} s after {RUNS} fan-outs of {RUN_LIMIT:,} no-ops."
)


def most_held(side: Side, tasks: int, report: Callable[[str], None]) -> Sample:
    """Return the most memory of each service, each at its own moment, while as many ordinary tasks run at once."""
    containers = cgroup_usage.containers(side.project)
    most = cgroup_usage.memory(cgroup_usage.read(containers))
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(run_to_end, side.api, ORDINARY, {"tasks": tasks, "megabytes": HELD_MB}, report)
        while not run.done():
            now = cgroup_usage.memory(cgroup_usage.read(containers))
            most |= {service: max(most.get(service, 0.0), value) for service, value in now.items()}
            time.sleep(POLL_SECONDS)
    run.result()  # raises what the run has raised
    return by_service(MEMORY, most, MIB)


def held_after_rest(side: Side, report: Callable[[str], None]) -> Sample:
    """Return the memory of each service once processes have given back what they can."""
    idle(side, report, REST_SECONDS)
    return memory(side, report)


def held_after_tasks(side: Side, report: Callable[[str], None]) -> Sample:
    """Return the memory of each service after the fan-outs and a rest."""
    for _ in range(RUNS):
        run_to_end(side.api, FAN_OUT, {"tasks": RUN_LIMIT}, report)
    return held_after_rest(side, report)


def compare(
    _project: Project, side: Side, rounds: int, taken: dict[str, list[Sample]], report: Callable[[str], None]
) -> None:
    """Take the three in order, `rounds` times. See Comparison."""
    slots = int(side.model["services"]["worker"]["environment"][CONCURRENCY]) * expected_replicas(side.model)["worker"]
    for number in range(1, rounds + 1):
        with turns([side], report) as turn:
            turn(side)
            steps = (
                (AT_REST, partial(held_after_rest, side, report)),
                (LOADED, partial(most_held, side, slots, report)),
                (AFTER, partial(held_after_tasks, side, report)),
            )
            for name, take in steps:
                taken.setdefault(name, []).append(take())
                report(f"round {number} of {rounds}, {name}")
