"""What to change first at ten times the size: written by hand, with the figures of the benches where there are some."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ops.bench import commit_rate, dag_file_scaling
from ops.bench.benches import CORES, COST, FAN_OUTS, LATENCY, MEMORY, cpu_a_task
from ops.bench.instance_scaling import SCHEDULERS, WORKERS, named
from ops.bench.prometheus_figures import CONNECTIONS, SERIES
from ops.bench.statistics import ratio, shown, spread, values
from ops.bench.targets import OURS
from ops.bench.telemetry_cost import RATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ops.bench.statistics import Result


@dataclass(frozen=True)
class Quote:
    """A median of the kept results.

    Attributes:
        bench: of which bench.
        side: whose.
        figure: which.
        base: with whom it is compared, where a ratio is quoted.
    """

    bench: str
    side: str
    figure: str
    base: str = ""

    def of(self, results: Sequence[Result]) -> str | None:
        """As it is shown; None where it was not measured."""
        samples = next((result.samples for result in results if result.bench == self.bench), {})
        mine = samples.get(self.side, [])
        found = ratio(mine, samples.get(self.base, []), self.figure) if self.base else spread(values(mine, self.figure))
        return shown(found.median) if found else None


@dataclass(frozen=True)
class Advice:
    """One thing to change.

    Attributes:
        change: what, and why.
        measured: a sentence with {} for each quote; left out where one of them was not measured.
        quotes: for it.
    """

    change: str
    measured: str = ""
    quotes: tuple[Quote, ...] = ()

    def text(self, results: Sequence[Result]) -> str:
        """Both, as far as there are results."""
        found = [quote.of(results) for quote in self.quotes]
        return self.change if not found or None in found else f"{self.change} {self.measured.format(*found)}"


ONE_SCHEDULER, ALL_SCHEDULERS = (named("scheduler", number) for number in (SCHEDULERS[0], SCHEDULERS[-1]))
ONE_WORKER, ALL_WORKERS = (named("worker", number) for number in (WORKERS[0], WORKERS[-1]))
FEW_FILES, MANY_FILES = (
    dag_file_scaling.named(number) for number in (dag_file_scaling.SIZES[0], dag_file_scaling.SIZES[-1])
)

INTRODUCTION: Final = """\
## At ten times the size

What to change first, in this order. Figures are medians of the tables above; where there is none, there is a reason.
"""
ADVICE: Final = (
    Advice(
        "**Cores.** Nothing below makes a task cheaper: cores ÷ CPU-seconds a task is what a machine can do, whatever "
        "is scaled.",
        "A task of a fan-out costs {} CPU-seconds here.",
        (Quote("fanout", OURS, cpu_a_task(FAN_OUTS[-1])),),
    ),
    Advice(
        "**Slots, and `PARALLELISM` with them.** `./ops/stack scale worker=N`, and in `compose/.env` `PARALLELISM` as "
        "many as there are slots: it is each scheduler's own limit, and one alone should fill them. Many more would "
        "put the queue into Redis, where nobody's priority counts. Airflow's `[scheduler] max_tis_per_query` is how "
        "many tasks one pass of a scheduler queues: raise it to what starts in a second or two, no further, since "
        "others wait for the lock of that pass.",
        f"{ALL_WORKERS} did {{}} times the tasks a second of one on the same cores.",
        (Quote("workers", ALL_WORKERS, RATE, ONE_WORKER),),
    ),
    Advice(
        "**Memory of a slot.** A slot is a process of its own, and what a task imports or loads comes on top, in each: "
        "the worker's limit in `compose/airflow.yaml` has to hold `WORKER_CONCURRENCY` times that. More workers "
        "rather than more slots in one: what the limit kills is then fewer tasks.",
        f"After a fan-out of no-ops {ONE_WORKER} holds {{}} MiB, {ALL_WORKERS} {{}}.",
        (Quote("workers", ONE_WORKER, f"{MEMORY}: worker"), Quote("workers", ALL_WORKERS, f"{MEMORY}: worker")),
    ),
    Advice(
        "**execution-api.** Each instance is one process and uses one core at most: tasks a second times its "
        "share of a task, and one to spare.",
        "Its share is {} CPU-seconds.",
        (Quote("cost", OURS, f"{COST}: execution-api"),),
    ),
    Advice(
        "**DAG files.** First `[dag_processor] min_file_process_interval`: an unchanged file is read again so often, "
        "and once a round takes longer than that the processor never rests, and an edit waits for the round. With a "
        "longer interval it waits less: edited files are queued by their time of change as soon as nothing else is. "
        "Then `parsing_processes`, a core each; the time limit of a reading and the processor's memory with them.",
        f"With {FEW_FILES} and with {MANY_FILES}: all are known after {{}} and {{}} s, each is read again after {{}} "
        "and {} s, edits are known after {} and {} s, the stack at rest uses {} and {} cores, and a run of two tasks "
        "takes {} and {} s.",
        tuple(
            Quote(dag_file_scaling.NAME, side, figure)
            for figure in (dag_file_scaling.KNOWN, dag_file_scaling.AGAIN, dag_file_scaling.EDITED, CORES, LATENCY)
            for side in (FEW_FILES, MANY_FILES)
        ),
    ),
    Advice(
        "**Connections.** Every instance has pools of its own "
        "([which](../../alerting/runbooks/PostgresConnections.md)), the API servers' the largest, and a worker one "
        "connection a slot for results. `max_connections` holds the default scale with every pool full "
        "([tested](../../tests/unit/compose/test_budget.py)); ten times that is a server process each. Before it is "
        "raised: PgBouncer for the API servers alone, in transaction mode and from 1.21 on, which passes on prepared "
        "statements. Not for schedulers, which listen on a channel of Postgres "
        "([why](../../src/airflow_ha/patches/scheduler_notify_wakeup.py)): that needs a connection of one's own.",
        f"With {ONE_WORKER} and with {ALL_WORKERS} there were up to {{}} and {{}} connections during a fan-out.",
        (Quote("workers", ONE_WORKER, CONNECTIONS), Quote("workers", ALL_WORKERS, CONNECTIONS)),
    ),
    Advice(
        "**Rows.** Airflow deletes nothing by itself: each attempt leaves rows (task instance, rendered fields, XCom, "
        "log), and the scheduler's queries and every page slow down with the tables, not with the load. `airflow db "
        "clean` in small pieces every night, and `delete from celery_taskmeta where date_done < …` in the database of "
        "Celery's results, which it does not reach; then Postgres' `shared_buffers`, so that what is live fits.",
    ),
    Advice(
        "**StatsD's series.** Counters and histograms of every DAG, task and file stay for as long as statsd-exporter "
        "runs, and each is scraped: mind `sample_limit` in `compose/prometheus/prometheus.yaml` "
        "([CardinalityGrows](../../alerting/runbooks/CardinalityGrows.md)). Drop the label of the file or the task "
        "in `compose/statsd-exporter/mapping.yaml` before the limit is raised.",
        f"{FEW_FILES} make it {{}} series, {MANY_FILES} {{}}.",
        (Quote(dag_file_scaling.NAME, FEW_FILES, SERIES), Quote(dag_file_scaling.NAME, MANY_FILES, SERIES)),
    ),
    Advice(
        "**Completions a second.** Commits that wake schedulers wait for one another, also for the replica of each: "
        "far above what tasks cost on this machine, and first on one with very many cores or a distant replica "
        "([why](../../src/airflow_ha/patches/scheduler_notify_wakeup.py)).",
        "With a replica on the same disk there were {} a second, and {} without NOTIFY.",
        tuple(
            Quote(
                commit_rate.NAME, commit_rate.SIDES["replicated", how], commit_rate.figure(commit_rate.CONNECTIONS[-1])
            )
            for how in ("notify", "silent")
        ),
    ),
    Advice(
        "**Schedulers last.** More of them are for the case that one dies. All take the same lock on the pools to "
        "queue tasks, and who does not get it passes (`airflow_scheduler_critical_section_busy` counts that): add one "
        "only while the loop is busy with other work, many DAG runs or DAGs due at once, and Postgres has cores to "
        "spare.",
        f"{ALL_SCHEDULERS} did {{}} times the tasks a second of one at {{}} times the CPU a task, and "
        "use {} cores at rest where one uses {}.",
        (
            Quote("schedulers", ALL_SCHEDULERS, RATE, ONE_SCHEDULER),
            Quote("schedulers", ALL_SCHEDULERS, COST, ONE_SCHEDULER),
            Quote("schedulers", ALL_SCHEDULERS, CORES),
            Quote("schedulers", ONE_SCHEDULER, CORES),
        ),
    ),
)


def section(results: Sequence[Result]) -> str:
    """The end of RESULTS.md."""
    told = "".join(f"{number}. {advice.text(results)}\n" for number, advice in enumerate(ADVICE, start=1))
    return f"{INTRODUCTION}\n{told}"
