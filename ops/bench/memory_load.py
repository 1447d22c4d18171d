"""Memory of each service: at rest, at its peak under ordinary data tasks on every slot, and after 10,000 tasks."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from airflow_ha.sizes import MIB
from ops.bench import cgroup_usage
from ops.bench.benches import MEMORY, RUN_LIMIT, measure_idle, measure_memory
from ops.bench.statistics import by_service
from ops.bench.targets import CONCURRENCY, taking_turns
from ops.bench.workloads import FAN_OUT, ORDINARY, run_and_wait
from ops.compose import expected_replicas

if TYPE_CHECKING:
    from collections.abc import Callable

    from ops.bench.statistics import Sample
    from ops.bench.targets import Measurement, Target

NAME = "memory-load"
RUNS = 10
HELD_MB = 200
REST_SECONDS = 60.0
"""Idle time before a reading; longer than the interval of every periodic job."""
POLL_SECONDS = 0.5
AT_REST = "at rest"
LOADED = f"at most, under tasks of {HELD_MB} MB on all slots"
AFTER = f"after {RUNS * RUN_LIMIT:,} tasks"
SUMMARY = (
    f"Memory of each service at rest; its peak while a task on each slot imports scikit-learn and holds {HELD_MB} MB; "
    f"and {REST_SECONDS:.0f} s after {RUNS} fan-outs of {RUN_LIMIT:,} no-ops."
)


def peak_memory(target: Target, tasks: int, report: Callable[[str], None]) -> Sample:
    """Return the peak memory of each service while so many ordinary tasks run; peaks may be at different times."""
    containers = cgroup_usage.running_containers(target.project)
    peak = cgroup_usage.memory_by_service(cgroup_usage.read_usage(containers))
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(run_and_wait, target.api, ORDINARY, {"tasks": tasks, "megabytes": HELD_MB}, report)
        while not run.done():
            current = cgroup_usage.memory_by_service(cgroup_usage.read_usage(containers))
            peak |= {service: max(peak.get(service, 0.0), value) for service, value in current.items()}
            time.sleep(POLL_SECONDS)
    run.result()  # raises the error of the run
    return by_service(MEMORY, peak, MIB)


def memory_after_rest(target: Target, report: Callable[[str], None]) -> Sample:
    """Return the memory of each service after an idle time, in which processes free what they can."""
    measure_idle(target, report, REST_SECONDS)
    return measure_memory(target, report)


def memory_after_tasks(target: Target, report: Callable[[str], None]) -> Sample:
    """Return the memory of each service after the fan-outs and an idle time."""
    for _ in range(RUNS):
        run_and_wait(target.api, FAN_OUT, {"tasks": RUN_LIMIT}, report)
    return memory_after_rest(target, report)


def compare(measurement: Measurement) -> None:
    """Measure the three variants in order, once a round."""
    target, report = measurement.target, measurement.report
    slots_each = int(target.model["services"]["worker"]["environment"][CONCURRENCY])
    slots = slots_each * expected_replicas(target.model)["worker"]
    steps = (
        (AT_REST, partial(memory_after_rest, target, report)),
        (LOADED, partial(peak_memory, target, slots, report)),
        (AFTER, partial(memory_after_tasks, target, report)),
    )
    for number in measurement.round_numbers():
        with taking_turns([target], report) as activate:
            activate(target)
            for variant, measure in steps:
                measurement.add(number, variant, measure())
