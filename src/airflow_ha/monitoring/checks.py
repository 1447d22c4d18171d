"""From what was seen to what is wrong. Pure functions: each holds one kind of observation against its threshold."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from airflow_ha.monitoring import findings
from airflow_ha.monitoring.check_state import WORKERS_KEY, overdue_key, pool_key, queued_key
from airflow_ha.monitoring.findings import Finding, dag_page, run_page, task_page

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from airflow_ha.monitoring.check_state import Memory
    from airflow_ha.monitoring.observations import FailingTask, Job, Observations, QueuedTask, ScheduledTask
    from airflow_ha.monitoring.thresholds import ThresholdError, Thresholds

COMPONENTS = {"SchedulerJob": "scheduler", "DagProcessorJob": "dag-processor", "TriggererJob": "triggerer"}
"""The components that have a job, by the job's type."""

SEEN_TWICE = 30.0
"""Seconds for which a DAG must have been seen past one due time: at two checks. When Airflow was off for a night every
DAG is hours late, for the second that the scheduler needs; one that catches up is late for days, and moves on."""

SCHEDULED_GRACE = 10.0
"""Seconds for which a task may wait for a pool that is created beside its DAG."""

FORGOTTEN = 3600.0
"""Seconds after which one that vanished beside others is taken for removed: its job stays "running" for ever."""

LISTED = 10
"""Failing tasks and queued ones that a description names at most."""


def check(seen: Observations, memory: Memory, thresholds: Thresholds, slots: int) -> list[Finding]:
    """All findings.

    Args:
        seen: what this check saw.
        memory: since when what lasts, this check's conditions included.
        thresholds: when it counts.
        slots: how many tasks one worker runs at a time.
    """
    return [
        *failure_rate(seen, thresholds),
        *failing_dags(seen, thresholds),
        *silent_jobs(seen.jobs, seen.at, thresholds),
        *starving_pools(seen, memory, thresholds),
        *unschedulable_tasks(seen),
        *queued_too_long(seen, memory, thresholds),
        *full_workers(seen, memory, thresholds, slots),
        *overdue_dags(seen, memory, thresholds),
        *import_errors(seen),
    ]


def failure_rate(seen: Observations, thresholds: Thresholds) -> Iterator[Finding]:
    """Too many runs of all DAGs failed."""
    runs = seen.all_runs
    if runs.ended < thresholds.min_ended_runs or runs.failure_ratio <= thresholds.failure_rate:
        return
    worst = sorted(seen.runs.items(), key=lambda item: (-item[1].failed, item[0]))
    parts = [f"{dag_id} {of.failed} of {of.ended}" for dag_id, of in worst[:LISTED] if of.failed]
    yield Finding(
        findings.FAILURE_RATE_HIGH,
        "data",
        summary=f"{runs.failed} of {runs.ended} DAG runs failed in {thresholds.window_hours:g} h "
        f"({runs.failure_ratio:.0%})",
        description=f"More than {thresholds.failure_rate:.0%} of all DAG runs failed. "
        f"Failed by DAG: {', '.join(parts) or 'not known'}.",
        dashboard=findings.DAGS,
        run_url="/dag_runs?state=failed",
    )


def failing_dags(seen: Observations, thresholds: Thresholds) -> Iterator[Finding]:
    """Too many runs of one DAG failed."""
    for dag_id, runs in sorted(seen.runs.items()):
        if runs.ended < thresholds.min_ended_runs or runs.failure_ratio <= thresholds.failure_rate:
            continue
        tasks = [task for task in seen.failing_tasks if task.dag_id == dag_id]
        yield Finding(
            findings.DAG_RUNS_FAILING,
            "data",
            summary=f"{dag_id}: {runs.failed} of {runs.ended} runs failed in {thresholds.window_hours:g} h "
            f"({runs.failure_ratio:.0%})",
            description=f"More than {thresholds.failure_rate:.0%} of its runs failed. {failing_tasks(tasks)}",
            dashboard=findings.DAGS,
            labels={"dag_id": dag_id},
            run_url=run_page(dag_id, runs.latest_failed) if runs.latest_failed else dag_page(dag_id),
        )


def failing_tasks(tasks: Iterable[FailingTask]) -> str:
    """The failing tasks in words: each with its count and the page of its latest failure."""
    told = [
        f"{task.dag_id}.{task.task_id} {task.failed} times "
        f"(latest: {task_page(task.dag_id, task.latest_run, task.task_id)})"
        for task in tasks
    ]
    if not told:
        return "No task of it failed: its runs timed out, or were marked."
    more = f" and {len(told) - LISTED} tasks more" if len(told) > LISTED else ""
    return f"Failed tasks: {', '.join(told[:LISTED])}{more}."


def silent_jobs(jobs: Iterable[Job], at: datetime, thresholds: Thresholds) -> Iterator[Finding]:
    """No scheduler, dag-processor or triggerer is alive, or one has vanished without a word or a successor."""
    everyone = list(jobs)
    limit = thresholds.job_silent_seconds

    def silence(job: Job) -> float:
        return (at - job.heartbeat).total_seconds()

    alive = [job for job in everyone if job.running and silence(job) <= limit]
    # What starts with the stack is not missed before it had the time to.
    if alive and (at - min(job.started for job in alive)).total_seconds() <= limit:
        return
    for component in COMPONENTS.values():
        own = [job for job in everyone if job.component == component]
        if not own:
            continue
        left = [job for job in own if job in alive]
        vanished = [
            job
            for job in own
            if job.running
            and job not in alive
            and silence(job) <= FORGOTTEN
            and not any(other.started > job.heartbeat for other in own)
        ]
        newest = max(own, key=lambda job: job.heartbeat)
        if left and vanished:
            lost = max(vanished, key=lambda job: job.heartbeat)
            summary = f"{component} {lost.hostname} gave no sign for {silence(lost):.0f} s; {len(left)} left"
        elif not left and silence(newest) > limit:
            summary = f"no {component} is alive; the last sign was {silence(newest):.0f} s ago"
        else:
            continue
        yield Finding(
            findings.COMPONENT_DOWN,
            "platform",
            summary=summary,
            description=f"Heartbeats come every 5 s; {limit:g} s without one count as gone. "
            f"Alive: {', '.join(sorted(job.hostname for job in left)) or 'none'}.",
            dashboard=findings.WORKERS,
            labels={"component": component},
            run_url="/jobs",
        )


def starving_pools(seen: Observations, memory: Memory, thresholds: Thresholds) -> Iterator[Finding]:
    """A pool has no free slot and tasks wait for one, for too long."""
    for pool in seen.pools:
        lasts = memory.lasts(pool_key(pool.name), seen.at)
        if pool.starving and lasts > thresholds.pool_full_seconds:
            yield Finding(
                findings.POOL_STARVING,
                "data",
                summary=f"pool {pool.name} has had no free slot for {lasts / 60:.0f} min; {pool.scheduled} are wanted",
                description=f"None of its {pool.slots} slots is free; tasks that are ready want {pool.scheduled} more.",
                dashboard=findings.DAGS,
                labels={"pool_name": pool.name},
                run_url="/pools",
            )


def unschedulable_tasks(seen: Observations) -> Iterator[Finding]:
    """Yield one finding for each DAG and pool whose tasks no scheduler will ever queue, and why."""
    slots = {pool.name: pool.slots for pool in seen.pools}
    blocked: dict[tuple[str, str], list[ScheduledTask]] = {}
    for task in seen.scheduled:
        if (seen.at - task.scheduled).total_seconds() < SCHEDULED_GRACE:
            continue
        size = slots.get(task.pool)
        if task.dag_id in seen.blocked_dags:
            blocked.setdefault((task.dag_id, ""), []).append(task)
        elif size is None or 0 <= size < task.pool_slots:
            blocked.setdefault((task.dag_id, task.pool), []).append(task)
    for (dag_id, pool), tasks in sorted(blocked.items()):
        widest = max(tasks, key=lambda task: task.pool_slots)
        reason, remedy = why_unschedulable(pool, slots.get(pool), widest.pool_slots)
        count = Counter(task.task_id for task in tasks)
        who = f"{dag_id}.{widest.task_id}" if len(count) == 1 else f"{dag_id}: {len(count)} tasks"
        several = f" ({len(tasks)} instances)" if len(tasks) > 1 else ""
        names = ", ".join(f"{task_id} ({number})" for task_id, number in count.most_common(LISTED))
        more = f" and {len(count) - LISTED} more" if len(count) > LISTED else ""
        yield Finding(
            findings.TASKS_UNSCHEDULABLE,
            "data",
            summary=f"{who} cannot run{several}: {reason}",
            description="They stay in the state scheduled, and their runs do not end, until somebody acts. "
            f"{remedy} Waiting: {names}{more}.",
            dashboard=findings.DAGS,
            labels={"dag_id": dag_id} | ({"pool_name": pool} if pool else {}),
            run_url=run_page(dag_id, tasks[0].run_id),
        )


def why_unschedulable(pool: str, size: int | None, wanted: int) -> tuple[str, str]:
    """Return why a task can never be queued, and what to do about it.

    Args:
        pool: its name; empty where the DAG's own limit is the reason.
        size: the pool's slots; None where there is no such pool.
        wanted: the slots that the task takes.
    """
    if not pool:
        return "max_active_tasks of the DAG is 0", "Raise max_active_tasks, or pause the DAG."
    if size is None:
        return f"pool {pool} does not exist", "Create the pool, or correct `pool=` in the DAG: a typo is likely."
    if size == 0:
        return f"pool {pool} has 0 slots", "Give the pool slots, or pause the DAG while the pool is closed."
    return (
        f"it takes {wanted} slots, pool {pool} has {size}",
        "Raise the pool's slots, or lower `pool_slots=` in the DAG.",
    )


def queued_for(task: QueuedTask, memory: Memory, at: datetime) -> float:
    """Seconds since a task was first queued, whatever the scheduler did to it since then."""
    return max((at - task.queued).total_seconds(), memory.lasts(queued_key(task.id), at))


def oldest_queued(seen: Observations, memory: Memory) -> float:
    """Seconds for which the oldest queued task has been queued, 0 when none is."""
    return max((queued_for(task, memory, seen.at) for task in seen.queued), default=0.0)


def queued_too_long(seen: Observations, memory: Memory, thresholds: Thresholds) -> Iterator[Finding]:
    """Tasks wait for a worker for too long."""
    late = [task for task in seen.queued if queued_for(task, memory, seen.at) > thresholds.queued_seconds]
    if not late:
        return
    late.sort(key=lambda task: -queued_for(task, memory, seen.at))
    oldest = late[0]
    names = [f"{task.dag_id}.{task.task_id} (queue {task.queue})" for task in late[:LISTED]]
    yield Finding(
        findings.QUEUED_TOO_LONG,
        "platform",
        summary=f"{oldest.dag_id}.{oldest.task_id} has been queued for {queued_for(oldest, memory, seen.at):.0f} s "
        f"and no worker takes it; so have {len(late) - 1} others"
        if len(late) > 1
        else f"{oldest.dag_id}.{oldest.task_id} has been queued for {queued_for(oldest, memory, seen.at):.0f} s "
        "and no worker takes it",
        description=f"Queued for more than {thresholds.queued_seconds:g} s, the oldest first: {', '.join(names)}.",
        dashboard=findings.WORKERS,
        run_url=run_page(oldest.dag_id, oldest.run_id),
    )


def full_workers(seen: Observations, memory: Memory, thresholds: Thresholds, slots: int) -> Iterator[Finding]:
    """Every worker that runs something has all its slots taken while tasks wait, for too long.

    A worker with nothing to do is not to be seen in Airflow's API; but with one, no task would stay queued.
    """
    lasts = memory.lasts(WORKERS_KEY, seen.at)
    if lasts > thresholds.workers_full_seconds:
        running = sum(seen.running.values())
        yield Finding(
            findings.WORKERS_FULL,
            "platform",
            summary=f"{len(seen.running)} workers have had no free slot for {lasts / 60:.0f} min "
            f"and {len(seen.queued)} tasks wait",
            description=f"{running} tasks run on {len(seen.running)} workers with {slots} slots each.",
            dashboard=findings.WORKERS,
        )


def overdue_for(seen: Observations, memory: Memory) -> dict[str, float]:
    """Return the seconds past the due time, by DAG; 0 for one that is not, is held back, or has just moved on."""
    return {
        dag.dag_id: dag.late(seen.at) if memory.lasts(overdue_key(dag), seen.at) >= SEEN_TWICE else 0.0
        for dag in seen.due
    }


def overdue_dags(seen: Observations, memory: Memory, thresholds: Thresholds) -> Iterator[Finding]:
    """A DAG should have run and has not been started."""
    for dag_id, late in sorted(overdue_for(seen, memory).items()):
        if late > thresholds.overdue_seconds:
            yield Finding(
                findings.DAG_OVERDUE,
                "data",
                summary=f"{dag_id} is {late / 60:.0f} min past its due time and no run was made",
                description="It is on, has no import error and fewer runs than it may have at a time: "
                "the scheduler should have made its run.",
                dashboard=findings.DAGS,
                labels={"dag_id": dag_id},
                run_url=dag_page(dag_id),
            )


def import_errors(seen: Observations) -> Iterator[Finding]:
    """A DAG file does not import: its DAGs do not run, or run as they were before."""
    for problem in sorted(seen.import_problems, key=lambda each: each.file):
        yield Finding(
            findings.IMPORT_ERRORS,
            "data",
            summary=f"{problem.file} does not import",
            description=f"Its DAGs are not scheduled until it does: {problem.error}",
            dashboard=findings.DAGS,
            labels={"file": problem.file},
            run_url="/dags",
        )


def misconfigured(errors: Iterable[ThresholdError]) -> Iterator[Finding]:
    """A threshold is set to what it cannot be."""
    for error in errors:
        yield Finding(
            findings.MISCONFIGURED,
            "platform",
            summary=f"the Airflow Variable {error.variable} cannot be used",
            description=f"{str(error)[0].upper()}{str(error)[1:]}.",
            dashboard=findings.OVERVIEW,
            labels={"variable": error.variable},
            run_url="/variables",
        )


def counts(found: Iterable[Finding]) -> Mapping[str, int]:
    """How many findings there are, by every name that there can be."""
    number = dict.fromkeys(findings.ALERT_NAMES, 0)
    for finding in found:
        number[finding.alertname] += 1
    return number
