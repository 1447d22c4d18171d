"""The cost of maintenance for schedulers: the delay of a first task before and during the removal of a history."""

from __future__ import annotations

import statistics
import subprocess
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from ops import maintenance
from ops.bench.statistics import format_number, percentile
from ops.bench.targets import wait_until_idle
from ops.bench.workloads import PAIR, first_task_delay, run_and_wait
from ops.errors import FAILURE, StackError
from ops.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from ops.bench.statistics import Sample
    from ops.bench.targets import Measurement, Target

NAME = "maintenance"
TASKS, LOGS = 1_000_000, 200_000
PROBES = 40
"""Runs before; during the removal they follow one another until it ends."""
BEFORE, DURING = "before", "during"
DELAY = "seconds to the first task, p95"
SUMMARY = (
    f"Maintenance removes {TASKS:,} task instances, each with an XCom and a line of the audit log, and {LOGS:,} log"
    " files. Meanwhile runs of two tasks follow one another: from the request for a run to its first task, before it"
    f" ({PROBES} runs) and during it."
)
PROGRAM: Final = ROOT / "ops/bench/old_history.py"


def execute(container: str, *arguments: str) -> None:
    """Run old_history.py in the container of maintenance.

    Raises:
        StackError: It failed; the error quotes its last line.
    """
    command = ["docker", "exec", "--interactive", container, "python", "-", *arguments]
    done = subprocess.run(command, input=PROGRAM.read_text(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise StackError(
            f"cannot prepare the bench {NAME}: {done.stderr.strip().rpartition(chr(10))[2]}",
            where=f"old_history.py {' '.join(arguments)}",
            hint="run ./ops/stack status to find unhealthy services",
            code=FAILURE,
        )


def measure(target: Target, goes_on: Callable[[int], bool], report: Callable[[str], None]) -> Sample:
    """Measure one run after the other.

    Args:
        target: The stack.
        goes_on: Whether another run follows, after so many.
        report: Shows a progress line.
    """
    delays: list[float] = []
    while goes_on(len(delays)) or not delays:
        delays.append(first_task_delay(target.api, run_and_wait(target.api, PAIR, {}, report)))
    return {
        DELAY: percentile(delays, 0.95),
        "seconds to the first task, median": statistics.median(delays),
        "runs": float(len(delays)),
    }


def measure_removal(target: Target, container: str, report: Callable[[str], None]) -> Sample:
    """Measure during one run of maintenance, and the seconds that it takes.

    Raises:
        StackError: Maintenance failed.
    """
    started = time.monotonic()
    with subprocess.Popen(maintenance.command(container, "run"), stdout=subprocess.DEVNULL) as child:
        sample = measure(target, lambda _: child.poll() is None, report)
        maintenance.check(child.wait())
    return sample | {"seconds until all is removed": time.monotonic() - started}


def compare(measurement: Measurement) -> None:
    """Create a history, and measure before and during its removal; whatever is left is removed at the end.

    Raises:
        StackError: Maintenance waits for approval: it would remove more than the bench created.
    """
    target, report = measurement.target, measurement.report
    instance = maintenance.running_container(target.project)
    if instance.waits_for:
        raise StackError(
            f"cannot run the bench {NAME}: maintenance {instance.waits_for}",
            hint="run ./ops/stack maintenance, which shows what it would remove",
        )
    for number in measurement.round_numbers():
        try:
            report(f"creating {TASKS:,} task instances and {LOGS:,} log files")
            execute(instance.id, "create", str(TASKS), str(LOGS))
            wait_until_idle(target, report)
            measure(target, partial(int.__gt__, 5), report)  # warms up
            for variant, sample in (
                (BEFORE, measure(target, partial(int.__gt__, PROBES), report)),
                (DURING, measure_removal(target, instance.id, report)),
            ):
                measurement.add(number, variant, sample, f"{format_number(sample[DELAY])} {DELAY}")
        finally:
            execute(instance.id, "remove")
