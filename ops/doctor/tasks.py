"""Task instances that wait or run without progress, from Airflow's own tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from ops.doctor import database
from ops.doctor.finding import Finding, Urgency

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ops.doctor.finding import Examined

QUEUED_SECONDS: Final = 300
"""A scheduler queues a task again that no worker took within 30 s (task_queued_timeout in compose/airflow.yaml)."""
SILENT_SECONDS: Final = 120
"""A scheduler fails a try without heartbeat after 35 s (task_instance_heartbeat_timeout in compose/airflow.yaml)."""
LISTED: Final = 10

QUERY: Final = f"""
WITH stuck AS (
  SELECT dag_id, task_id, run_id, state, coalesce(queue, '') AS queue, coalesce(hostname, '') AS host,
    extract(epoch FROM now() - CASE state
      WHEN 'queued' THEN queued_dttm ELSE coalesce(last_heartbeat_at, start_date) END) AS seconds
  FROM task_instance WHERE state IN ('queued', 'running')
)
SELECT json_build_object('stuck', (SELECT coalesce(json_agg(listed), '[]') FROM (
  SELECT * FROM stuck
  WHERE seconds > CASE state WHEN 'queued' THEN {QUEUED_SECONDS} ELSE {SILENT_SECONDS} END
  ORDER BY seconds DESC LIMIT {LISTED}) AS listed))
"""  # noqa: S608 -- two constants


class StuckTask(NamedTuple):
    """A task instance: queued for so many seconds, or running without heartbeat for so many."""

    dag_id: str
    task_id: str
    run_id: str
    state: str
    queue: str
    host: str
    seconds: float


@dataclass(frozen=True)
class Tasks:
    """At most LISTED task instances without progress, the oldest first."""

    stuck: tuple[StuckTask, ...]


def gather(examined: Examined) -> Tasks:
    """Return the task instances without progress."""
    facts = database.answer(database.primary(examined), QUERY)
    return Tasks(stuck=tuple(StuckTask(**task) for task in facts["stuck"]))


def stuck(tasks: Tasks) -> Iterator[Finding]:
    """Yield a finding for each task instance without progress."""
    for task in tasks.stuck:
        name = f"task {task.dag_id}.{task.task_id}"
        if task.state == "queued":
            value = f"queued for {task.seconds:.0f} s in queue {task.queue}, run {task.run_id}"
            fix = "./ops/stack status shows whether a worker is healthy; alerting/runbooks/AirflowQueuedTooLong.md"
            yield Finding(Urgency.SOON, name, "no worker takes it", value, fix)
        else:
            value = f"no heartbeat for {task.seconds:.0f} s, on {task.host or 'an unknown worker'}, run {task.run_id}"
            fix = "./ops/stack logs scheduler shows why no scheduler fails it; ./ops/stack restart restarts them"
            yield Finding(Urgency.SOON, name, "running without heartbeat", value, fix)
