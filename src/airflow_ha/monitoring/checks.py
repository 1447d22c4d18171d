"""Compare observations with thresholds. Pure functions, one per kind of finding."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from airflow_ha.monitoring import findings
from airflow_ha.monitoring.check_state import WORKERS_KEY, overdue_key, pool_key, queued_key
from airflow_ha.monitoring.findings import Finding, dag_page, run_page

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from airflow_ha.monitoring.check_state import CheckState
    from airflow_ha.monitoring.observations import FailingTask, Job, Observations, QueuedTask, ScheduledTask
    from airflow_ha.monitoring.thresholds import ThresholdError, Thresholds

COMPONENTS = {"SchedulerJob": "scheduler", "DagProcessorJob": "dag-processor", "TriggererJob": "triggerer"}
"""The component by job type."""

CONFIRMED_AFTER = 30.0
"""Seconds for which one due time must have passed: two checks. After a night without Airflow every DAG is hours late
for the second that the scheduler needs. A DAG that catches up is days late, but its due time advances."""

SCHEDULED_GRACE = 10.0
"""Seconds for which a task may wait for a pool that is created at the same time as its DAG."""

REMOVED_AFTER = 3600.0
"""Seconds after which a silent job beside live ones counts as removed: its state stays "running" for ever."""

MAX_LISTED = 10
"""The most failing or queued tasks that a description lists."""


def check(observed: Observations, state: CheckState, thresholds: Thresholds, slots: int) -> list[Finding]:
    """Return all findings.

    Args:
        observed: this check's observations.
        state: the lasting conditions, this check's included.
        thresholds: the limits.
        slots: how many tasks one worker runs at a time.
    """
    return [
        *failure_rate(observed, thresholds),
        *failing_dags(observed, thresholds),
        *silent_jobs(observed.jobs, observed.at, thresholds),
        *starving_pools(observed, state, thresholds),
        *unschedulable_tasks(observed),
        *queued_too_long(observed, state, thresholds),
        *full_workers(observed, state, thresholds, slots),
        *overdue_dags(observed, state, thresholds),
        *import_errors(observed),
    ]


def failure_rate(observed: Observations, thresholds: Thresholds) -> Iterator[Finding]:
    """Yield a finding if too many runs of all DAGs failed."""
    runs = observed.all_runs
    if runs.ended < thresholds.min_ended_runs or runs.failure_ratio <= thresholds.failure_rate:
        return
    by_failures = sorted(observed.runs.items(), key=lambda item: (-item[1].failed, item[0]))
    worst = [f"{dag_id} {dag.failed} of {dag.ended}" for dag_id, dag in by_failures[:MAX_LISTED] if dag.failed]
    yield Finding(
        findings.FAILURE_RATE_HIGH,
        "data",
        summary=f"DAG runs failing: {runs.failed} of {runs.ended} in {thresholds.window_hours:g} h "
        f"({runs.failure_ratio:.0%})",
        description=f"Results of DAGs are missing: more than {thresholds.failure_rate:.0%} of all runs failed. "
        f"A shared dependency is a likely cause. Failed runs by DAG: {', '.join(worst) or 'unknown'}.",
        dashboard=findings.DAGS,
        run_url="/dag_runs?state=failed",
    )


def failing_dags(observed: Observations, thresholds: Thresholds) -> Iterator[Finding]:
    """Yield a finding for each DAG with too many failed runs."""
    for dag_id, runs in sorted(observed.runs.items()):
        if runs.ended < thresholds.min_ended_runs or runs.failure_ratio <= thresholds.failure_rate:
            continue
        tasks = [task for task in observed.failing_tasks if task.dag_id == dag_id]
        yield Finding(
            findings.DAG_RUNS_FAILING,
            "data",
            summary=f"DAG {dag_id} failing: {runs.failed} of {runs.ended} runs in {thresholds.window_hours:g} h "
            f"({runs.failure_ratio:.0%})",
            description="Consumers of this DAG miss its results: "
            f"more than {thresholds.failure_rate:.0%} of its runs failed. {failing_tasks(tasks)}",
            dashboard=findings.DAGS,
            labels={"dag_id": dag_id},
            run_url=run_page(dag_id, runs.latest_failed) if runs.latest_failed else dag_page(dag_id),
        )


def failing_tasks(tasks: Iterable[FailingTask]) -> str:
    """Return a sentence with each failing task and its number of failures."""
    listed = [f"{task.dag_id}.{task.task_id} {task.failed}" for task in tasks]
    if not listed:
        return "None of its tasks failed: the runs timed out or were marked as failed."
    more = f" and {len(listed) - MAX_LISTED} more tasks" if len(listed) > MAX_LISTED else ""
    return f"Failures by task: {', '.join(listed[:MAX_LISTED])}{more}."


def silent_jobs(jobs: Iterable[Job], at: datetime, thresholds: Thresholds) -> Iterator[Finding]:
    """Yield a finding for each component with no live instance, or with a lost instance that nothing replaced."""
    jobs = list(jobs)
    limit = thresholds.job_silent_seconds

    def silence(job: Job) -> float:
        return (at - job.heartbeat).total_seconds()

    alive = [job for job in jobs if job.running and silence(job) <= limit]
    # During the start of the stack a component may still lack its first heartbeat.
    if alive and (at - min(job.started for job in alive)).total_seconds() <= limit:
        return
    for component in COMPONENTS.values():
        own = [job for job in jobs if job.component == component]
        if not own:
            continue
        remaining = [job for job in own if job in alive]
        lost = [
            job
            for job in own
            if job.running
            and job not in alive
            and silence(job) <= REMOVED_AFTER
            and not any(other.started > job.heartbeat for other in own)
        ]
        newest = max(own, key=lambda job: job.heartbeat)
        if remaining and lost:
            latest = max(lost, key=lambda job: job.heartbeat)
            summary = f"{component} {latest.hostname} down: no heartbeat for {silence(latest):.0f} s, "
            summary += f"{len(remaining)} remaining"
            impact = f"The remaining {component} instances take over."
        elif not remaining and silence(newest) > limit:
            summary = f"{component} down: no instance alive, last heartbeat {silence(newest):.0f} s ago"
            impact = f"The work of the {component} has stopped."
        else:
            continue
        yield Finding(
            findings.COMPONENT_DOWN,
            "platform",
            summary=summary,
            description=f"{impact} A {component} sends a heartbeat every 5 s and counts as down after {limit:g} s. "
            f"Alive: {', '.join(sorted(job.hostname for job in remaining)) or 'none'}.",
            dashboard=findings.WORKERS,
            labels={"component": component},
            run_url="/jobs",
        )


def starving_pools(observed: Observations, state: CheckState, thresholds: Thresholds) -> Iterator[Finding]:
    """Yield a finding for each pool that has had waiting tasks and no free slot for too long."""
    for pool in observed.pools:
        seconds = state.duration(pool_key(pool.name), observed.at)
        if pool.is_starving and seconds > thresholds.pool_full_seconds:
            yield Finding(
                findings.POOL_STARVING,
                "data",
                summary=f"Pool {pool.name} full for {seconds / 60:.0f} min: {pool.scheduled} slots requested",
                description=f"Tasks of this pool are delayed: all of its {pool.slots} slots are taken, "
                f"and ready tasks request {pool.scheduled} more. The pool is too small, or its tasks hang.",
                dashboard=findings.DAGS,
                labels={"pool_name": pool.name},
                run_url="/pools",
            )


def unschedulable_tasks(observed: Observations) -> Iterator[Finding]:
    """Yield a finding for each DAG and pool with tasks that no scheduler can ever queue."""
    slots = {pool.name: pool.slots for pool in observed.pools}
    blocked: dict[tuple[str, str], list[ScheduledTask]] = {}
    for task in observed.scheduled:
        if (observed.at - task.scheduled).total_seconds() < SCHEDULED_GRACE:
            continue
        size = slots.get(task.pool)
        if task.dag_id in observed.blocked_dags:
            blocked.setdefault((task.dag_id, ""), []).append(task)
        elif size is None or 0 <= size < task.pool_slots:
            blocked.setdefault((task.dag_id, task.pool), []).append(task)
    for (dag_id, pool), tasks in sorted(blocked.items()):
        widest = max(tasks, key=lambda task: task.pool_slots)
        reason, remedy = why_unschedulable(pool, slots.get(pool), widest.pool_slots)
        count = Counter(task.task_id for task in tasks)
        blocked_tasks = f"{dag_id}.{widest.task_id}" if len(count) == 1 else f"{dag_id}: {len(count)} tasks"
        instances = f" ({len(tasks)} instances)" if len(tasks) > 1 else ""
        names = ", ".join(f"{task_id} ({number})" for task_id, number in count.most_common(MAX_LISTED))
        more = f" and {len(count) - MAX_LISTED} more" if len(count) > MAX_LISTED else ""
        yield Finding(
            findings.TASKS_UNSCHEDULABLE,
            "data",
            summary=f"{blocked_tasks} unschedulable{instances}: {reason}",
            description="These tasks stay in the state scheduled, and their runs do not end, until an operator acts. "
            f"{remedy} Waiting: {names}{more}.",
            dashboard=findings.DAGS,
            labels={"dag_id": dag_id} | ({"pool_name": pool} if pool else {}),
            run_url=run_page(dag_id, tasks[0].run_id),
        )


def why_unschedulable(pool: str, size: int | None, requested: int) -> tuple[str, str]:
    """Return why a task can never be queued, and the remedy.

    Args:
        pool: its name; empty if the DAG's own limit is the reason.
        size: the pool's slots; None if the pool does not exist.
        requested: the slots that the task takes.
    """
    if not pool:
        return "max_active_tasks of the DAG is 0", "Raise max_active_tasks, or pause the DAG."
    if size is None:
        return f"pool {pool} does not exist", "Create the pool, or correct `pool=` in the DAG: a typo is likely."
    if size == 0:
        return f"pool {pool} has 0 slots", "Give the pool slots, or pause the DAG while the pool is closed."
    return (
        f"it takes {requested} slots, pool {pool} has {size}",
        "Raise the pool's slots, or lower `pool_slots=` in the DAG.",
    )


def seconds_queued(task: QueuedTask, state: CheckState, at: datetime) -> float:
    """Return the seconds since a task was first queued, even if the scheduler has queued it again since then."""
    return max((at - task.queued).total_seconds(), state.duration(queued_key(task.id), at))


def oldest_queued(observed: Observations, state: CheckState) -> float:
    """Return the seconds for which the oldest queued task has been queued; 0 if no task is queued."""
    return max((seconds_queued(task, state, observed.at) for task in observed.queued), default=0.0)


def queued_too_long(observed: Observations, state: CheckState, thresholds: Thresholds) -> Iterator[Finding]:
    """Yield a finding if tasks have waited for a worker for too long."""
    seconds = {task: seconds_queued(task, state, observed.at) for task in observed.queued}
    late = sorted(
        (task for task in observed.queued if seconds[task] > thresholds.queued_seconds),
        key=lambda task: -seconds[task],
    )
    if not late:
        return
    oldest = late[0]
    names = [f"{task.dag_id}.{task.task_id} (queue {task.queue})" for task in late[:MAX_LISTED]]
    others = f", and {len(late) - 1} more tasks" if len(late) > 1 else ""
    yield Finding(
        findings.QUEUED_TOO_LONG,
        "platform",
        summary=f"{oldest.dag_id}.{oldest.task_id} queued for {seconds[oldest]:.0f} s without a worker{others}",
        description="These tasks are delayed: workers are down, full, or do not consume the queue. "
        f"Queued for more than {thresholds.queued_seconds:g} s, the oldest first: {', '.join(names)}.",
        dashboard=findings.WORKERS,
        run_url=run_page(oldest.dag_id, oldest.run_id),
    )


def full_workers(observed: Observations, state: CheckState, thresholds: Thresholds, slots: int) -> Iterator[Finding]:
    """Yield a finding if all workers with running tasks have been full for too long while tasks wait.

    Airflow's API does not show an idle worker; but if one existed, no task would stay queued.
    """
    seconds = state.duration(WORKERS_KEY, observed.at)
    if seconds > thresholds.workers_full_seconds:
        running = sum(observed.running.values())
        yield Finding(
            findings.WORKERS_FULL,
            "platform",
            summary=f"{len(observed.running)} workers full for {seconds / 60:.0f} min: "
            f"{len(observed.queued)} tasks queued",
            description="Queued tasks are delayed: the load exceeds the capacity, or running tasks hang. "
            f"{running} tasks run on {len(observed.running)} workers with {slots} slots each.",
            dashboard=findings.WORKERS,
        )


def seconds_overdue(observed: Observations, state: CheckState) -> dict[str, float]:
    """Return the seconds past the due time by DAG; 0 if it is not overdue, is held back, or has just advanced."""
    return {
        dag.dag_id: dag.seconds_late(observed.at)
        if state.duration(overdue_key(dag), observed.at) >= CONFIRMED_AFTER
        else 0.0
        for dag in observed.due
    }


def overdue_dags(observed: Observations, state: CheckState, thresholds: Thresholds) -> Iterator[Finding]:
    """Yield a finding for each DAG whose run is due and was not created."""
    for dag_id, seconds in sorted(seconds_overdue(observed, state).items()):
        if seconds > thresholds.overdue_seconds:
            yield Finding(
                findings.DAG_OVERDUE,
                "data",
                summary=f"DAG {dag_id} overdue: no run created for {seconds / 60:.0f} min after its due time",
                description="Consumers of this DAG wait for its data. The DAG is unpaused, has no import error and has "
                "not reached max_active_runs. The likely cause is a scheduler that is down or slow.",
                dashboard=findings.DAGS,
                labels={"dag_id": dag_id},
                run_url=dag_page(dag_id),
            )


def import_errors(observed: Observations) -> Iterator[Finding]:
    """Yield a finding for each DAG file that does not import; its DAGs do not run, or run in their last version."""
    for problem in sorted(observed.import_problems, key=lambda each: each.file):
        yield Finding(
            findings.IMPORT_ERRORS,
            "data",
            summary=f"DAG file {problem.file} failing to import",
            description=f"Its DAGs are not scheduled until the file imports. Error: {problem.error}",
            dashboard=findings.DAGS,
            labels={"file": problem.file},
            run_url="/dags",
        )


def misconfigured(errors: Iterable[ThresholdError]) -> Iterator[Finding]:
    """Yield a finding for each invalid threshold."""
    for error in errors:
        yield Finding(
            findings.MISCONFIGURED,
            "platform",
            summary=f"Airflow Variable {error.variable} invalid: default in use",
            description=f"Checks use the default instead of the configured threshold. Reason: {error}.",
            dashboard=findings.OVERVIEW,
            labels={"variable": error.variable},
            run_url="/variables",
        )


def counts(results: Iterable[Finding]) -> Mapping[str, int]:
    """Return the number of findings by alert name, 0 included."""
    number = dict.fromkeys(findings.ALERT_NAMES, 0)
    for finding in results:
        number[finding.alertname] += 1
    return number
