"""Create runs and logs that are older than their limits, inside the container of maintenance.

The bench `maintenance` sends this file there: `python - create TASKS LOGS`, or `python - remove`.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import text

from airflow_ha.maintenance import rows

if TYPE_CHECKING:
    from sqlalchemy import Engine

DAG_ID = "bench_old_history"
TASKS_A_RUN = 100
RUNS_AT_ONCE = 500
LOGS = Path("/opt/airflow/logs", f"dag_id={DAG_ID}")
DAY = 86400.0

RUNS = text(
    "INSERT INTO dag_run (dag_id, run_id, run_type, state, start_date, end_date, run_after)"
    " SELECT :dag_id, 'r' || n, 'manual', 'success', at, at, at FROM (SELECT n, now() - make_interval("
    " days => :days + 1 + n % 100) AS at FROM generate_series(CAST(:first AS int), :last) AS n) AS run"
)
TASKS = text(
    "INSERT INTO task_instance (id, dag_id, run_id, task_id, state, try_number, pool, pool_slots, start_date, end_date)"
    " SELECT gen_random_uuid(), dag_id, run_id, 't' || n, 'success', 1, 'default_pool', 1, start_date, end_date"
    " FROM dag_run, generate_series(1, :tasks) AS n WHERE dag_id = :dag_id AND run_id IN"
    " (SELECT 'r' || n FROM generate_series(CAST(:first AS int), :last) AS n)"
)
XCOMS = text(
    "INSERT INTO xcom (dag_run_id, dag_id, run_id, task_id, map_index, key, value, timestamp)"
    " SELECT run.id, task.dag_id, task.run_id, task.task_id, -1, 'return_value', '\"a value\"', task.end_date"
    " FROM task_instance AS task JOIN dag_run AS run USING (dag_id, run_id) WHERE task.dag_id = :dag_id"
    " AND task.run_id IN (SELECT 'r' || n FROM generate_series(CAST(:first AS int), :last) AS n)"
)
AUDIT = text(
    "INSERT INTO log (dttm, dag_id, task_id, run_id, event)"
    " SELECT now() - make_interval(days => :audit_days + 1), :dag_id, 't', 'r', 'success'"
    " FROM generate_series(1, (CAST(:last AS int) - CAST(:first AS int) + 1) * :tasks)"
)


def create_rows(tasks: int) -> None:
    """Create so many task instances, each with an XCom and a line of the audit log."""
    days = {name: int(os.environ[f"RETENTION_{name.upper()}"]) for name in ("runs_days", "audit_days")}
    runs = -(-tasks // TASKS_A_RUN)
    for first in range(1, runs + 1, RUNS_AT_ONCE):
        chunk = {"dag_id": DAG_ID, "first": first, "last": min(runs, first + RUNS_AT_ONCE - 1), "tasks": TASKS_A_RUN}
        with engine().begin() as connection:
            for statement in (RUNS, TASKS, XCOMS, AUDIT):
                connection.execute(statement, chunk | {"days": days["runs_days"], "audit_days": days["audit_days"]})


def create_logs(number: int) -> None:
    """Create so many log files."""
    at = time.time() - (int(os.environ["RETENTION_LOGS_DAYS"]) + 1) * DAY
    for index in range(number):
        run, task = divmod(index, TASKS_A_RUN)
        path = LOGS / f"run_id=r{run}/task_id=t{task}/attempt=1.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"event": "a line"}\n' * 10)
        os.utime(path, (at, at))


def remove() -> None:
    """Remove what an interrupted bench left, and its empty folders."""
    with engine().begin() as connection:
        for statement in ("DELETE FROM dag_run WHERE dag_id = :dag_id", "DELETE FROM log WHERE dag_id = :dag_id"):
            connection.execute(text(statement), {"dag_id": DAG_ID})
    shutil.rmtree(LOGS, ignore_errors=True)


def engine() -> Engine:
    """Return an engine of the metadata database."""
    return rows.connect(Path("/run/secrets/sql_alchemy_conn").read_text().strip())


if __name__ == "__main__":
    if sys.argv[1] == "create":
        create_rows(int(sys.argv[2]))
        create_logs(int(sys.argv[3]))
    else:
        remove()
