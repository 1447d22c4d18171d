"""Advice on the first changes at ten times the size; measured figures of the benches are inserted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ops.bench import commit_rate, dag_file_scaling, instance_scaling
from ops.bench.benches import CORES, COST, FAN_OUTS, LATENCY, MEMORY, cpu_figure
from ops.bench.instance_scaling import SCHEDULERS, WORKERS
from ops.bench.prometheus_figures import CONNECTIONS, SERIES
from ops.bench.statistics import figure_values, format_number, paired_ratio, spread
from ops.bench.targets import OURS
from ops.bench.telemetry_cost import RATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ops.bench.statistics import Result


@dataclass(frozen=True)
class Quote:
    """A median from the kept results.

    Attributes:
        bench: Name of the bench.
        variant: The variant whose figure is quoted.
        figure: Name of the figure.
        base: The variant that it is compared with, if the quote is a ratio.
    """

    bench: str
    variant: str
    figure: str
    base: str = ""

    def text(self, results: Sequence[Result]) -> str | None:
        """Return the formatted median; None if it was not measured."""
        by_variant = next((result.samples for result in results if result.bench == self.bench), {})
        samples, base = by_variant.get(self.variant, []), by_variant.get(self.base, [])
        values = paired_ratio(samples, base, self.figure) if self.base else spread(figure_values(samples, self.figure))
        return format_number(values.median) if values else None


@dataclass(frozen=True)
class Advice:
    """One thing to change.

    Attributes:
        change: The change, and its reason.
        measured: Sentences with {} for each quote; omitted unless all quotes were measured.
        quotes: The figures for them.
    """

    change: str
    measured: str = ""
    quotes: tuple[Quote, ...] = ()

    def text(self, results: Sequence[Result]) -> str:
        """Return the advice, with the measured figures if there are any."""
        figures = [quote.text(results) for quote in self.quotes]
        return self.change if not figures or None in figures else f"{self.change} {self.measured.format(*figures)}"


ONE_SCHEDULER, ALL_SCHEDULERS = (
    instance_scaling.variant_name("scheduler", number) for number in (SCHEDULERS[0], SCHEDULERS[-1])
)
ONE_WORKER, ALL_WORKERS = (instance_scaling.variant_name("worker", number) for number in (WORKERS[0], WORKERS[-1]))
FEW_FILES, MANY_FILES = (
    dag_file_scaling.variant_name(number) for number in (dag_file_scaling.SIZES[0], dag_file_scaling.SIZES[-1])
)

INTRODUCTION: Final = """\
## At ten times the size

What to change first, in this order. Figures are medians of the tables above.
"""
ADVICE: Final = (
    Advice(
        "**Cores.** Nothing below makes a task cheaper. The throughput limit of a machine is its cores ÷ CPU-seconds a "
        "task, whatever else is scaled.",
        "A task of a fan-out costs {} CPU-seconds here.",
        (Quote("fanout", OURS, cpu_figure(FAN_OUTS[-1])),),
    ),
    Advice(
        "**Slots, and `PARALLELISM` with them.** Run `./ops/stack scale worker=N`, and set `PARALLELISM` in "
        "`compose/.env` to the number of slots. It limits each scheduler, and one scheduler alone should fill all "
        "slots. A much higher limit moves the queue into Redis, which ignores priorities. Airflow's "
        "`[scheduler] max_tis_per_query` is the number of tasks that one scheduler loop queues. Raise it to the number "
        "of tasks that start in a second or two, and no further: other schedulers wait for the lock of that loop.",
        f"On the same cores, {ALL_WORKERS} did {{}} times the tasks a second of one.",
        (Quote("workers", ALL_WORKERS, RATE, ONE_WORKER),),
    ),
    Advice(
        "**Memory of a slot.** Each slot is a process, and each loads what its task imports. `WORKER_MEMORY` in "
        "`compose/.env` must hold `WORKER_CONCURRENCY` times that memory. Prefer more workers to more slots in one: "
        "the out-of-memory killer then ends fewer tasks.",
        f"After a fan-out of no-ops, {ONE_WORKER} holds {{}} MiB and {ALL_WORKERS} hold {{}} MiB.",
        (Quote("workers", ONE_WORKER, f"{MEMORY}: worker"), Quote("workers", ALL_WORKERS, f"{MEMORY}: worker")),
    ),
    Advice(
        "**execution-api.** Each instance is one process and uses one core at most. The number of instances is tasks a "
        "second × the CPU-seconds of the Execution API a task, plus one spare.",  # noqa: RUF001
        "It needs {} CPU-seconds a task.",
        (Quote("cost", OURS, f"{COST}: execution-api"),),
    ),
    Advice(
        "**DAG files.** First raise `[dag_processor] min_file_process_interval`, the time between two parses of an "
        "unchanged file. If a pass over all files takes longer than that interval, the DAG processor never idles and "
        "an edited file waits for the pass. With a longer interval it waits less: once the queue is empty, edited "
        "files are queued, by modification time. Then raise `parsing_processes`, which needs a core for each process, "
        "with the time limit of a parse and the processor's memory.",
        f"With {FEW_FILES} and with {MANY_FILES}, respectively: all are known after {{}} and {{}} s, each is parsed "
        "again after {} and {} s, edits are known after {} and {} s, the stack at rest uses {} and {} cores, and a run "
        "of two tasks takes {} and {} s.",
        tuple(
            Quote(dag_file_scaling.NAME, variant, figure)
            for figure in (dag_file_scaling.KNOWN, dag_file_scaling.AGAIN, dag_file_scaling.EDITED, CORES, LATENCY)
            for variant in (FEW_FILES, MANY_FILES)
        ),
    ),
    Advice(
        "**Connections.** Every instance has its own connection pools "
        "([list](../../alerting/runbooks/PostgresConnections.md)). The API servers have the largest; a worker has one "
        "connection a slot for results. `max_connections` covers the default scale with every pool full "
        "([test](../../tests/unit/compose/test_budget.py)). Each connection is a server process. Before you raise the "
        "limit tenfold, put PgBouncer in front of the API servers only, in transaction mode, from version 1.21 on, "
        "which supports prepared statements. Schedulers cannot use it: they LISTEN on a Postgres channel, which needs "
        "a session of its own ([reason](../../src/airflow_ha/patches/scheduler_notify_wakeup.py)).",
        f"During a fan-out there were up to {{}} connections with {ONE_WORKER} and up to {{}} with {ALL_WORKERS}.",
        (Quote("workers", ONE_WORKER, CONNECTIONS), Quote("workers", ALL_WORKERS, CONNECTIONS)),
    ),
    Advice(
        "**Rows.** Each try adds rows (task instance, rendered fields, XCom, log), and the queries of schedulers and "
        "pages slow down with the size of the tables, not with the load. "
        "[Maintenance](../README.md) removes old ones every night: with more load lower "
        "`RETENTION_RUNS_DAYS` and `RETENTION_AUDIT_DAYS`. Then raise Postgres' `shared_buffers` until the live rows "
        "fit.",
    ),
    Advice(
        "**StatsD series.** statsd-exporter keeps the counters and histograms of every DAG, task and file until it "
        "restarts, and Prometheus scrapes all of them. Watch `sample_limit` in `compose/prometheus/prometheus.yaml` "
        "([CardinalityGrows](../../alerting/runbooks/CardinalityGrows.md)). Before you raise it, drop the label of the "
        "file or the task in `compose/statsd-exporter/mapping.yaml`.",
        f"{FEW_FILES} lead to {{}} series, {MANY_FILES} to {{}}.",
        (Quote(dag_file_scaling.NAME, FEW_FILES, SERIES), Quote(dag_file_scaling.NAME, MANY_FILES, SERIES)),
    ),
    Advice(
        "**Completions a second.** Commits that wake schedulers are serialized, and each waits for the replica. On "
        "this machine the CPU time of tasks limits throughput long before that. The commits are the first limit on a "
        "machine with very many cores or with a distant replica "
        "([reason](../../src/airflow_ha/patches/scheduler_notify_wakeup.py)).",
        "With a replica on the same disk there were {} commits a second, and {} without NOTIFY.",
        tuple(
            Quote(
                commit_rate.NAME,
                commit_rate.VARIANTS["replicated", commit],
                commit_rate.rate_figure(commit_rate.CONNECTIONS[-1]),
            )
            for commit in ("notify", "silent")
        ),
    ),
    Advice(
        "**Schedulers last.** A second scheduler is for failover. All schedulers take the same lock on the pools to "
        "queue tasks; a scheduler that does not get the lock skips that step, and "
        "`airflow_scheduler_critical_section_busy` counts the skips. Add a scheduler only if its loop is busy with "
        "other work (many DAG runs, or many DAGs due at once) and Postgres has spare cores.",
        f"{ALL_SCHEDULERS} did {{}} times the tasks a second of one, at {{}} times the CPU a task. At rest they use "
        "{} cores, one uses {}.",
        (
            Quote("schedulers", ALL_SCHEDULERS, RATE, ONE_SCHEDULER),
            Quote("schedulers", ALL_SCHEDULERS, COST, ONE_SCHEDULER),
            Quote("schedulers", ALL_SCHEDULERS, CORES),
            Quote("schedulers", ONE_SCHEDULER, CORES),
        ),
    ),
)


def section(results: Sequence[Result]) -> str:
    """Return the last section of RESULTS.md."""
    items = "".join(f"{number}. {advice.text(results)}\n" for number, advice in enumerate(ADVICE, start=1))
    return f"{INTRODUCTION}\n{items}"
