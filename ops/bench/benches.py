"""The benches: what each measures, and what it is to show."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from ops.bench import cgroup_usage, telemetry_cost
from ops.bench.statistics import by_service, percentile
from ops.bench.targets import OURS, STOCK
from ops.bench.ui_load import CLIENTS, STAY, TIMEOUT, crowd
from ops.bench.workloads import FAN_OUT, HELD, PAIR, attempts_lost, closed_pool, end, first_start, run_to_end
from ops.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from ops.bench.statistics import Sample
    from ops.bench.targets import Side

    Report = Callable[[str], None]

PAIRS = 10
FAN_OUTS = (100, 1_000)
SLOTS, SLOT_TASKS, SLOT_SECONDS = 8, 300, 0.5
QUEUED = (100, 1_000, 10_000)
RUN_LIMIT = 1_000
"""Mapped tasks of one run: Airflow's max_map_length is 1,024."""
PROBES = 20
QUEUE_SECONDS = 600.0
COST_TASKS = 300
PEOPLE_TASKS = 100
IDLE_SECONDS = 60.0
REPORT_SECONDS = 10.0
MIB = 1024**2


@dataclass(frozen=True)
class Bench:
    """One thing that is measured, on one side at a time.

    Attributes:
        name: on the command line.
        sentence: what is done and counted, for people.
        measure: does it once.
    """

    name: str
    sentence: str
    measure: Callable[[Side, Report], Sample]


@dataclass(frozen=True)
class Goal:
    """What a bench is to show.

    Attributes:
        bench: which.
        what: is shown, for people, with its unit.
        figure: of its figures.
        kind: the ratio, the figure itself, or its worst round.
        limit: the bound.
        least: whether the bound is the least that is wanted, not the most.
        side: whose figure it is.
        base: with whom it is compared.
    """

    bench: str
    what: str
    figure: str
    kind: Literal["ratio", "value", "worst"]
    limit: float
    least: bool = False
    side: str = OURS
    base: str = STOCK

    def kept(self, value: float) -> bool:
        """Whether a value is within the bound."""
        return value >= self.limit if self.least else value <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.least else '≤'} {self.limit:g}{'×' if self.kind == 'ratio' else ''}"  # noqa: RUF001


def tasks_per_second(tasks: int) -> str:
    """The figure's name."""
    return f"{tasks:,} tasks: tasks/s"


def cpu_a_task(tasks: int) -> str:
    """The figure's name."""
    return f"{tasks:,} tasks: CPU-seconds a task"


def delay(queued: int) -> str:
    """The figure's name."""
    return f"{queued:,} queued: seconds to the first task, p95"


LATENCY = "seconds from request to success"
SLOT_TIME = "seconds"
GROWTH = f"p95 at {QUEUED[-1]:,} queued ÷ at {QUEUED[0]:,}"
FAILED, LOST, SLOWED = "failed requests", "lost attempts", "fan-out slowed by the people, times"
CORES, COST, MEMORY = "cores in use", "CPU-seconds a task", "MiB"


def latency(side: Side, report: Report) -> Sample:
    """Runs of two tasks, one after the other."""
    return {LATENCY: statistics.median(run_to_end(side.api, PAIR, {}, report).seconds for _ in range(PAIRS))}


def counted(side: Side, report: Report, tasks: int) -> tuple[float, dict[str, float]]:
    """A fan-out of no-ops: its seconds, and the CPU-seconds of each service meanwhile."""
    containers = cgroup_usage.containers(side.project)
    before = cgroup_usage.read(containers)
    seconds = run_to_end(side.api, FAN_OUT, {"tasks": tasks}, report).seconds
    return seconds, cgroup_usage.spent(before, cgroup_usage.read(containers))


def fan_out(side: Side, report: Report) -> Sample:
    """No-ops on all slots."""
    sample: Sample = {}
    for tasks in FAN_OUTS:
        seconds, spent = counted(side, report, tasks)
        sample[tasks_per_second(tasks)] = tasks / seconds
        sample[cpu_a_task(tasks)] = sum(spent.values()) / tasks
    return sample


def slots(side: Side, report: Report) -> Sample:
    """Half-second tasks on few slots: what a slot loses between two tasks."""
    with side.slots(SLOTS):
        run_to_end(side.api, FAN_OUT, {"tasks": 2 * SLOTS}, report)  # a worker that was made anew is slower at first
        conf = {"tasks": SLOT_TASKS, "seconds": SLOT_SECONDS}
        return {SLOT_TIME: run_to_end(side.api, FAN_OUT, conf, report).seconds}


def queue(side: Side, report: Report) -> Sample:
    """How long a run waits for its first task while so many tasks of others are due and wait for their pool."""
    sample: Sample = {}
    runs = []
    with closed_pool(side.api) as waiting:
        try:
            held = 0
            for queued in QUEUED:
                while held < queued:
                    tasks = min(RUN_LIMIT, queued - held)
                    runs.append(side.api.trigger(HELD, {"tasks": tasks}))
                    held += tasks
                wait(partial(waiting, held), QUEUE_SECONDS, f"{held:,} tasks are queued", report)
                run_to_end(side.api, PAIR, {}, report)  # while schedulers end the rounds in which they were made
                ended = [run_to_end(side.api, PAIR, {}, report) for _ in range(PROBES)]
                delays = [first_start(side.api, one) for one in ended]
                sample[delay(queued)] = percentile(delays, 0.95)
                sample[f"{queued:,} queued: seconds to the first task, median"] = statistics.median(delays)
        finally:
            for run in runs:
                end(side.api, run)
    return sample | {GROWTH: sample[delay(QUEUED[-1])] / sample[delay(QUEUED[0])]}


def people(side: Side, report: Report) -> Sample:
    """The same fan-out alone, then with people who use the UI and the REST API without pause."""
    conf = {"tasks": PEOPLE_TASKS}
    alone = run_to_end(side.api, FAN_OUT, conf, report)
    with crowd(side.api.url, side.api.authorization()) as seen:
        beside = run_to_end(side.api, FAN_OUT, conf, report, may_fail=True)
    return {
        FAILED: float(seen.failed),
        LOST: float(attempts_lost(side.api, beside.run)),
        "failed runs": float(beside.state != "success"),
        SLOWED: beside.seconds / alone.seconds,
        "requests a second": len(seen.seconds) / min(beside.seconds, STAY),
        "seconds a request, p95": percentile(seen.seconds or [TIMEOUT], 0.95),
    }


def idle(side: Side, report: Report, seconds: float = IDLE_SECONDS) -> Sample:
    """Nothing to do but what each side does by itself, health checks and its own DAGs included."""
    containers = cgroup_usage.containers(side.project)
    before, started = cgroup_usage.read(containers), time.monotonic()
    while (passed := time.monotonic() - started) < seconds:  # the time that passes is what is measured over
        report(f"idle for {passed:.0f} s of {seconds:.0f}")
        time.sleep(min(REPORT_SECONDS, seconds - passed))
    spent = cgroup_usage.spent(before, cgroup_usage.read(containers))
    return by_service(CORES, spent, time.monotonic() - started)


def cost(side: Side, report: Report) -> Sample:
    """Where a no-op's CPU time goes."""
    _, spent = counted(side, report, COST_TASKS)
    return by_service(COST, spent, COST_TASKS)


def memory(side: Side, _report: Report) -> Sample:
    """What is held after the benches before it."""
    return by_service(MEMORY, cgroup_usage.memory(cgroup_usage.read(cgroup_usage.containers(side.project))), MIB)


BENCHES = (
    Bench("latency", f"Runs of two tasks, one after the other; the median of {PAIRS}.", latency),
    Bench("fanout", "No-op tasks mapped in one run, on all slots.", fan_out),
    Bench(
        "slots",
        f"{SLOT_TASKS} tasks of half a second on {SLOTS} slots in all; {SLOT_TASKS * SLOT_SECONDS / SLOTS:.0f} s"
        " if a slot lost nothing.",
        slots,
    ),
    Bench(
        "queue",
        f"From the request for a run to its first task, while so many tasks of other runs are due and wait for their "
        f"pool; {PROBES} runs a size, after one that does not count.",
        queue,
    ),
    Bench("cost", f"CPU of each service for each task of a fan-out of {COST_TASKS} no-ops.", cost),
    Bench("idle", f"CPU of each service over {IDLE_SECONDS:.0f} s without a load.", idle),
    Bench("memory", "Memory of each service after the benches before it.", memory),
    # Last: it may bring an API to a stand.
    Bench(
        "people",
        f"{CLIENTS} clients on the UI and the REST API without pause, during a fan-out of {PEOPLE_TASKS} no-ops; for "
        f"{STAY:.0f} s at most, since an API that they have brought to a stand remains there while they stay.",
        people,
    ),
)

GOALS = (
    Goal("latency", "a run of two tasks, from request to success, s", LATENCY, "ratio", 0.35),
    Goal("slots", f"{SLOT_TASKS} half-second tasks on {SLOTS} slots, s", SLOT_TIME, "ratio", 0.4),
    *(
        Goal(
            "fanout", f"{tasks:,} no-op tasks on all slots, tasks/s", tasks_per_second(tasks), "ratio", 1.6, least=True
        )
        for tasks in FAN_OUTS
    ),
    *(Goal("fanout", f"the same {tasks:,}, CPU-s a task", cpu_a_task(tasks), "ratio", 0.6) for tasks in FAN_OUTS),
    Goal(
        "queue", f"the wait for a first task, {QUEUED[-1]:,} queued against {QUEUED[0]:,}, times", GROWTH, "value", 1.5
    ),
    Goal("people", f"{CLIENTS} people during a fan-out: requests that failed", FAILED, "worst", 0),
    Goal("people", "attempts lost meanwhile", LOST, "worst", 0),
    Goal("people", "the fan-out slowed by them, times", SLOWED, "value", 1.5),
    Goal("idle", "CPU of the whole stack at rest, cores", CORES, "ratio", 1.0),
    Goal(
        telemetry_cost.NAME,
        f"{telemetry_cost.TASKS} no-op tasks with telemetry {telemetry_cost.ON}, against {telemetry_cost.OFF}, s",
        telemetry_cost.RUN,
        "ratio",
        1.05,
        side=telemetry_cost.ON,
        base=telemetry_cost.OFF,
    ),
)
