"""The benches that are also run on a stock Airflow, and the goals of their figures."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from airflow_ha.sizes import MIB
from ops.bench import backup_load, cgroup_usage, maintenance_load, telemetry_cost
from ops.bench.statistics import by_service, percentile
from ops.bench.targets import OURS, STOCK
from ops.bench.ui_load import CLIENTS, LOAD_SECONDS, TIMEOUT, ui_traffic
from ops.bench.workloads import (
    FAN_OUT,
    HELD,
    PAIR,
    closed_pool,
    first_task_delay,
    lost_tries,
    mark_succeeded,
    run_and_wait,
)
from ops.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from ops.bench.statistics import Sample
    from ops.bench.targets import Target

    Report = Callable[[str], None]

PAIRS = 10
FAN_OUTS = (100, 1_000)
SLOTS, SLOT_TASKS, SLOT_SECONDS = 8, 300, 0.5
QUEUED = (100, 1_000, 10_000)
RUN_LIMIT = 1_000
"""Mapped tasks of one run; Airflow's max_map_length is 1,024."""
PROBES = 20
QUEUE_SECONDS = 600.0
COST_TASKS = 300
UI_LOAD_TASKS = 100
IDLE_SECONDS = 60.0
REPORT_SECONDS = 10.0


@dataclass(frozen=True)
class Bench:
    """A bench that measures one target at a time.

    Attributes:
        name: Its name on the command line.
        summary: Its work and its figures, in one phrase.
        measure: Measures a target once.
    """

    name: str
    summary: str
    measure: Callable[[Target, Report], Sample]


@dataclass(frozen=True)
class Goal:
    """A limit for one figure of a bench.

    Attributes:
        bench: Name of the bench.
        title: The figure in words, with its unit.
        figure: Name of the figure.
        kind: The value that the limit applies to: the median ratio to the base, the median, or the maximum of all
            rounds.
        limit: The limit.
        is_minimum: Whether the limit is a minimum; otherwise it is a maximum.
        variant: The variant that has the goal.
        base: The variant that it is compared with.
    """

    bench: str
    title: str
    figure: str
    kind: Literal["ratio", "value", "worst"]
    limit: float
    is_minimum: bool = False
    variant: str = OURS
    base: str = STOCK

    def is_met(self, value: float) -> bool:
        """Return whether a value is within the limit."""
        return value >= self.limit if self.is_minimum else value <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.is_minimum else '≤'} {self.limit:g}{'×' if self.kind == 'ratio' else ''}"  # noqa: RUF001


def rate_figure(tasks: int) -> str:
    """Return the figure's name."""
    return f"{tasks:,} tasks: tasks/s"


def cpu_figure(tasks: int) -> str:
    """Return the figure's name."""
    return f"{tasks:,} tasks: CPU-seconds a task"


def delay_figure(queued: int) -> str:
    """Return the figure's name."""
    return f"{queued:,} queued: seconds to the first task, p95"


LATENCY = "seconds from request to success"
SLOT_TIME = "seconds"
GROWTH = f"p95 at {QUEUED[-1]:,} queued ÷ at {QUEUED[0]:,}"
# These names and those of the benches are keys of results.json.
UI_LOAD = "ui-load"
FAILED, LOST, SLOWED = "failed requests", "lost tries", "fan-out slowed by UI traffic, times"
CORES, COST, MEMORY = "cores in use", "CPU-seconds a task", "MiB"


def measure_latency(target: Target, report: Report) -> Sample:
    """Measure runs of two tasks, one after the other."""
    return {LATENCY: statistics.median(run_and_wait(target.api, PAIR, {}, report).seconds for _ in range(PAIRS))}


def run_fan_out(target: Target, report: Report, tasks: int) -> tuple[float, dict[str, float]]:
    """Run a fan-out of no-ops and return its seconds, and the CPU-seconds by service during it."""
    containers = cgroup_usage.running_containers(target.project)
    before = cgroup_usage.read_usage(containers)
    seconds = run_and_wait(target.api, FAN_OUT, {"tasks": tasks}, report).seconds
    return seconds, cgroup_usage.cpu_by_service(before, cgroup_usage.read_usage(containers))


def measure_fan_outs(target: Target, report: Report) -> Sample:
    """Measure rate and CPU time of no-ops on all slots, for each size of the fan-out."""
    sample: Sample = {}
    for tasks in FAN_OUTS:
        seconds, cpu = run_fan_out(target, report, tasks)
        sample[rate_figure(tasks)] = tasks / seconds
        sample[cpu_figure(tasks)] = sum(cpu.values()) / tasks
    return sample


def measure_slots(target: Target, report: Report) -> Sample:
    """Measure half-second tasks on few slots, which shows the time that a slot loses between two tasks."""
    with target.limit_slots(SLOTS):
        run_and_wait(target.api, FAN_OUT, {"tasks": 2 * SLOTS}, report)  # warms up a worker that was recreated
        conf = {"tasks": SLOT_TASKS, "seconds": SLOT_SECONDS}
        return {SLOT_TIME: run_and_wait(target.api, FAN_OUT, conf, report).seconds}


def measure_queue(target: Target, report: Report) -> Sample:
    """Measure the delay of a run's first task while tasks of other runs are due and wait for their pool."""
    sample: Sample = {}
    runs = []
    with closed_pool(target.api) as has_waiting:
        try:
            held = 0
            for queued in QUEUED:
                while held < queued:
                    tasks = min(RUN_LIMIT, queued - held)
                    runs.append(target.api.trigger(HELD, {"tasks": tasks}))
                    held += tasks
                wait(partial(has_waiting, held), QUEUE_SECONDS, f"{held:,} tasks are queued", report)
                # This run is not counted: schedulers may still be in the loop that created the tasks.
                run_and_wait(target.api, PAIR, {}, report)
                finished = [run_and_wait(target.api, PAIR, {}, report) for _ in range(PROBES)]
                delays = [first_task_delay(target.api, run) for run in finished]
                sample[delay_figure(queued)] = percentile(delays, 0.95)
                sample[f"{queued:,} queued: seconds to the first task, median"] = statistics.median(delays)
        finally:
            for run in runs:
                mark_succeeded(target.api, run)
    return sample | {GROWTH: sample[delay_figure(QUEUED[-1])] / sample[delay_figure(QUEUED[0])]}


def measure_ui_load(target: Target, report: Report) -> Sample:
    """Measure the same fan-out without and with UI traffic."""
    conf = {"tasks": UI_LOAD_TASKS}
    alone = run_and_wait(target.api, FAN_OUT, conf, report)
    with ui_traffic(target.api.url, target.api.authorization()) as responses:
        loaded = run_and_wait(target.api, FAN_OUT, conf, report, may_fail=True)
    return {
        FAILED: float(responses.failed),
        LOST: float(lost_tries(target.api, loaded.run)),
        "failed runs": float(loaded.state != "success"),
        SLOWED: loaded.seconds / alone.seconds,
        "requests a second": len(responses.seconds) / min(loaded.seconds, LOAD_SECONDS),
        "seconds a request, p95": percentile(responses.seconds or [TIMEOUT], 0.95),
    }


def measure_idle(target: Target, report: Report, seconds: float = IDLE_SECONDS) -> Sample:
    """Measure CPU without a load, health checks and the target's own scheduled DAGs included."""
    containers = cgroup_usage.running_containers(target.project)
    before, started = cgroup_usage.read_usage(containers), time.monotonic()
    while (elapsed := time.monotonic() - started) < seconds:
        report(f"idle for {elapsed:.0f} of {seconds:.0f} s")
        time.sleep(min(REPORT_SECONDS, seconds - elapsed))
    cpu = cgroup_usage.cpu_by_service(before, cgroup_usage.read_usage(containers))
    return by_service(CORES, cpu, time.monotonic() - started)


def measure_cost(target: Target, report: Report) -> Sample:
    """Measure the CPU time of a no-op task by service."""
    _, cpu = run_fan_out(target, report, COST_TASKS)
    return by_service(COST, cpu, COST_TASKS)


def measure_memory(target: Target, _report: Report) -> Sample:
    """Measure the current memory by service."""
    return by_service(MEMORY, cgroup_usage.current_memory(target.project), MIB)


BENCHES = (
    Bench("latency", f"Runs of two tasks, one after the other; the median of {PAIRS}.", measure_latency),
    Bench("fanout", "No-op tasks mapped in one run, on all slots.", measure_fan_outs),
    Bench(
        "slots",
        f"{SLOT_TASKS} tasks of half a second on {SLOTS} slots in all; {SLOT_TASKS * SLOT_SECONDS / SLOTS:.0f} s"
        " if a slot lost no time.",
        measure_slots,
    ),
    Bench(
        "queue",
        "From the request for a run to its first task, while so many tasks of other runs are due and wait for their "
        f"pool; {PROBES} runs a size, after one that is not counted.",
        measure_queue,
    ),
    Bench("cost", f"CPU of each service for each task of a fan-out of {COST_TASKS} no-ops.", measure_cost),
    Bench("idle", f"CPU of each service over {IDLE_SECONDS:.0f} s without a load.", measure_idle),
    Bench("memory", "Memory of each service after the benches before it.", measure_memory),
    # This bench is last, because it may stall an API server.
    Bench(
        UI_LOAD,
        f"{CLIENTS} clients on the UI and the REST API without pause, during a fan-out of {UI_LOAD_TASKS} no-ops; for "
        f"{LOAD_SECONDS:.0f} s at most, since an API that they stall does not recover before they stop.",
        measure_ui_load,
    ),
)

GOALS = (
    Goal("latency", "a run of two tasks, from request to success, s", LATENCY, "ratio", 0.35),
    Goal("slots", f"{SLOT_TASKS} half-second tasks on {SLOTS} slots, s", SLOT_TIME, "ratio", 0.4),
    *(
        Goal(
            "fanout", f"{tasks:,} no-op tasks on all slots, tasks/s", rate_figure(tasks), "ratio", 1.6, is_minimum=True
        )
        for tasks in FAN_OUTS
    ),
    *(Goal("fanout", f"the same {tasks:,}, CPU-s a task", cpu_figure(tasks), "ratio", 0.6) for tasks in FAN_OUTS),
    Goal(
        "queue",
        f"the delay of a first task, p95, {QUEUED[-1]:,} queued against {QUEUED[0]:,}, times",
        GROWTH,
        "value",
        1.5,
    ),
    Goal(UI_LOAD, f"{CLIENTS} UI clients during a fan-out: failed requests", FAILED, "worst", 0),
    Goal(UI_LOAD, "lost tries of its tasks", LOST, "worst", 0),
    Goal(UI_LOAD, "the fan-out slowed by them, times", SLOWED, "value", 1.5),
    Goal("idle", "CPU of the whole stack at rest, cores", CORES, "ratio", 1.0),
    Goal(
        telemetry_cost.NAME,
        f"{telemetry_cost.TASKS} no-op tasks with telemetry {telemetry_cost.ON}, against {telemetry_cost.OFF}, s",
        telemetry_cost.RUN,
        "ratio",
        1.05,
        variant=telemetry_cost.ON,
        base=telemetry_cost.OFF,
    ),
    Goal(
        maintenance_load.NAME,
        f"the delay of a first task, p95, s, {maintenance_load.DURING} maintenance, against {maintenance_load.BEFORE}",
        maintenance_load.DELAY,
        "ratio",
        1.5,
        variant=maintenance_load.DURING,
        base=maintenance_load.BEFORE,
    ),
    Goal(
        backup_load.NAME,
        f"{backup_load.TASKS} no-op tasks {backup_load.DURING}, against {backup_load.WITHOUT}, s",
        backup_load.RUN,
        "ratio",
        1.1,
        variant=backup_load.DURING,
        base=backup_load.WITHOUT,
    ),
)
