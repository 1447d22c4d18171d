"""The rows of the databases that are old, and their deletion in short transactions.

The tables are those of `airflow db clean` (airflow/utils/db_cleanup.py of Airflow 3.3.2) with stricter conditions. That
command copies each batch into a table, and then deletes by the copy:

- It checks no state, so it deletes running runs; and a run that is cleared between copy and deletion goes too.
- It keeps the last scheduled run by start date. The next run follows from the last logical date, so a backfill could
  replace it and a DAG with catchup would run its history again.
- A crash leaves the copies. Here a crash leaves nothing: what was not committed is still there.
- Each batch reads the table from its beginning. Here each page of the table is read once.

A run's task instances, XComs, rendered fields and deadlines go with its row, by foreign keys. Triggers are not among
the tables: the triggerer deletes unused ones, and a deleted trigger would take its deferred task instance with it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import create_engine, text

from airflow_ha.maintenance.pace import SLICE
from airflow_ha.maintenance.removal import Removal
from airflow_ha.maintenance.retention import EXPIRED_DAYS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Engine

    from airflow_ha.maintenance.pace import Pace
    from airflow_ha.maintenance.retention import Limits

CONNECT_OPTIONS: Final = (
    "-c application_name=maintenance -c statement_timeout=300s -c lock_timeout=5s -c vacuum_cost_delay=2ms -c jit=off"
)
"""A statement that waits for a lock ends before a scheduler would notice. VACUUM pauses as autovacuum does."""

PAGES: Final = 128
"""Pages of a table (8 KiB each) that one statement reads."""
FIRST_ROWS, MAX_ROWS = 100, 10_000
"""Rows that a statement deletes: at the start, and at most. A run may have thousands of task instances."""

LAST_RUNS: Final = text("""
(SELECT DISTINCT ON (dag_id) id FROM dag_run WHERE run_type <> 'manual' ORDER BY dag_id, run_after DESC)
UNION (SELECT DISTINCT ON (dag_id) id FROM dag_run WHERE run_type IN ('scheduled', 'backfill')
  AND logical_date IS NOT NULL ORDER BY dag_id, logical_date DESC)
UNION (SELECT DISTINCT ON (dag_id) id FROM dag_run WHERE partition_key IS NOT NULL
  ORDER BY dag_id, partition_date DESC NULLS LAST, run_after DESC)
""")
"""The runs that each DAG's next one follows from: the last by time, by logical date and by partition.

They are read once: a query in each deletion would read all runs each time.
"""


def none(rows: str) -> str:
    """Return the condition that there are no such rows.

    OFFSET 0 makes Postgres test row by row, by an index. Otherwise each statement reads the whole other table, as seen
    with a million task instances.
    """
    return f"NOT EXISTS (SELECT FROM {rows} OFFSET 0)"


UNFINISHED: Final = "NOT IN ('success', 'failed', 'skipped', 'upstream_failed', 'removed')"
"""The states of a task instance that runs, waits or will run. One without a state in a finished run never will."""
FINISHED_RUN: Final = "base.state IN ('success', 'failed') AND " + none(
    f"task_instance AS task WHERE task.dag_id = base.dag_id AND task.run_id = base.run_id AND task.state {UNFINISHED}"
)
MONITORING: Final = "base.dag_id IN (SELECT dag_id FROM dag_tag WHERE name = 'monitoring')"


@dataclass(frozen=True)
class Rule:
    """Which rows of a table are old.

    Attributes:
        kind: A name for the report and the metric.
        table: The table; `base` in the expressions.
        age: The expression of the time that a row's age counts from.
        days: The days that rows are kept; 0 keeps all.
        condition: What else must hold.
    """

    kind: str
    table: str
    age: str
    days: int
    condition: str = "TRUE"

    def where(self) -> str:
        """Return the condition of a deletion."""
        return f"{self.age} < :before AND {self.condition}"


def metadata_rules(limits: Limits, last_runs: Iterable[int]) -> list[Rule]:
    """Return the rules of Airflow's own database; runs come first, because other rows are kept for them.

    Args:
        limits: What is kept.
        last_runs: The ids of LAST_RUNS, which are kept at any age.
    """
    ended = "coalesce(base.end_date, base.updated_at)"
    old_run = f"{FINISHED_RUN} AND base.id <> ALL ('{{{','.join(map(str, last_runs))}}}'::int[])"
    return [
        Rule("monitoring_runs", "dag_run", ended, limits.monitoring_days, f"{MONITORING} AND {old_run}"),
        Rule("runs", "dag_run", ended, limits.runs_days, old_run),
        # A DAG whose next run waits for other assets needs the events that it has; a run shows those that started it.
        Rule("asset_events", "asset_event", "base.timestamp", limits.runs_days,
             none("asset_dag_run_queue AS due WHERE due.asset_id = base.asset_id")
             + " AND " + none("dagrun_asset_event AS used WHERE used.event_id = base.id")),
        Rule("partition_keys", "partitioned_asset_key_log", "base.created_at", limits.runs_days,
             none("asset_partition_dag_run AS due WHERE due.id = base.asset_partition_dag_run_id")),
        # Its serialized DAG and code go with a version.
        Rule("dag_versions", "dag_version", "base.created_at", limits.runs_days,
             "EXISTS (SELECT FROM dag_version AS later WHERE later.dag_id = base.dag_id"
             " AND later.version_number > base.version_number)"
             " AND " + none("task_instance AS task WHERE task.dag_version_id = base.id")
             + " AND " + none("dag_run AS run WHERE run.created_dag_version_id = base.id")),
        Rule("callbacks", "callback", "base.created_at", limits.runs_days,
             "(base.state IS NULL OR base.state IN ('success', 'failed') OR base.state = 'scheduled'"
             " AND " + none("deadline WHERE deadline.callback_id = base.id") + ")"),
        Rule("jobs", "job", "base.latest_heartbeat", limits.runs_days),
        Rule("import_errors", "import_error", "base.timestamp", limits.runs_days),
        Rule("audit_log", "log", "base.dttm", limits.audit_days),
        Rule("task_states", "task_state_store", "base.expires_at", EXPIRED_DAYS),
        Rule("revoked_tokens", "revoked_token", "base.exp", EXPIRED_DAYS),
        Rule("sessions", "session", "base.expiry", EXPIRED_DAYS),
        Rule("connection_tests", "connection_test_request", "base.updated_at", EXPIRED_DAYS,
             "base.state IN ('success', 'failed')"),
    ]  # fmt: skip


RESULT_RULES: Final = [Rule("results", "results.celery_taskmeta", "base.date_done", EXPIRED_DAYS)]
"""The rules of the database of Celery's results."""


def connect(url: str) -> Engine:
    """Return an engine for maintenance; the URL of Celery's results begins with `db+`."""
    return create_engine(url.removeprefix("db+"), connect_args={"options": CONNECT_OPTIONS}, pool_pre_ping=True)


def last_runs(engine: Engine) -> list[int]:
    """Return the ids of LAST_RUNS."""
    with engine.connect() as connection:
        return list(connection.scalars(LAST_RUNS))


def active_runs(engine: Engine, dag_id: str) -> set[str]:
    """Return the ids of a DAG's runs that are not finished, or have a task that is not."""
    statement = text(
        "SELECT run_id FROM dag_run WHERE dag_id = :dag_id AND state IN ('queued', 'running')"  # noqa: S608
        f" UNION SELECT run_id FROM task_instance WHERE dag_id = :dag_id AND state {UNFINISHED}"
    )
    with engine.connect() as connection:
        return set(connection.scalars(statement, {"dag_id": dag_id}))


def monitoring_dags(engine: Engine) -> set[str]:
    """Return the ids of the DAGs with the tag `monitoring`."""
    with engine.connect() as connection:
        return set(connection.scalars(text("SELECT dag_id FROM dag_tag WHERE name = 'monitoring'")))


def remove(engine: Engine, rule: Rule, now: datetime, pace: Pace, *, is_dry_run: bool) -> Removal:
    """Delete the rows that are old, or count them."""
    before = {"before": now - timedelta(days=rule.days)}
    if not rule.days:
        return Removal(rule.kind, 0)
    if is_dry_run:
        with engine.connect() as connection:
            statement = text(f"SELECT count(*) FROM {rule.table} AS base WHERE {rule.where()}")  # noqa: S608  constants
            return Removal(rule.kind, connection.scalar(statement, before) or 0)
    return Removal(rule.kind, sum(delete(engine, rule, before, pace)))


def delete(engine: Engine, rule: Rule, before: dict[str, Any], pace: Pace) -> Iterator[int]:
    """Delete the old rows page by page, and yield the number of each transaction.

    A row that another transaction has locked is skipped: it is in use. A row that changed is checked again.
    """
    with engine.connect() as connection:
        pages = connection.scalar(text(f"SELECT pg_relation_size('{rule.table}') / 8192")) or 0
    rows = FIRST_ROWS
    for first in range(0, pages, PAGES):
        is_done = False
        while not is_done:
            started = time.monotonic()
            statement = delete_statement(rule, first, rows)
            with engine.begin() as connection:
                deleted = connection.execute(text(statement), before).rowcount
            yield deleted
            is_done = deleted < rows
            rows = next_rows(rows, deleted, time.monotonic() - started)
            pace.rest()


def delete_statement(rule: Rule, first: int, rows: int) -> str:
    """Return the deletion of at most so many rows from the pages that begin with a number."""
    return (
        f"DELETE FROM {rule.table} WHERE ctid = ANY (ARRAY(SELECT base.ctid FROM {rule.table} AS base"  # noqa: S608
        f" WHERE base.ctid >= '({first},0)' AND base.ctid < '({first + PAGES},0)' AND {rule.where()}"
        f" LIMIT {rows} FOR UPDATE OF base SKIP LOCKED))"
    )


def next_rows(rows: int, deleted: int, seconds: float) -> int:
    """Return the rows of the next transaction, so that it takes SLICE: at most twice, at least a tenth as many."""
    if deleted == 0:
        return rows
    fitting = int(deleted * SLICE / max(seconds, 0.001))
    return max(1, rows // 10, min(fitting, 2 * rows, MAX_ROWS))


def vacuum(engine: Engine, pace: Pace) -> list[str]:
    """Make the space of deleted rows usable, and return the tables.

    Autovacuum starts when a fifth of a table's rows is dead; a night's share of 90 days never is.
    """
    dead = text(
        "SELECT format('%I.%I', schemaname, relname) FROM pg_stat_user_tables"
        " WHERE n_dead_tup > 1000 AND n_dead_tup > 0.005 * n_live_tup ORDER BY n_dead_tup DESC"
    )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.detach()  # it is closed afterwards, with its time-out
        connection.execute(text("SET statement_timeout = 0"))
        tables = list(connection.scalars(dead))
        for table in tables:
            connection.execute(text(f"VACUUM (ANALYZE, SKIP_LOCKED) {table}"))
            pace.rest()
    return tables
