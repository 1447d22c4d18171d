"""The hold: unpaused DAGs are paused and remembered in a table of our own, until each is released.

These things of a held DAG stand still, because pausing alone does not stop them:

- The triggers of its deferred tasks. A triggerer without `--queues` runs no trigger that has a queue, so they get one.
- The time-outs of its deferred tasks, and of those that wait for input, and the deadlines of its runs. They are moved
  out of reach; at the release they get the time between the restored point and the release.
- The time-outs of its runs (`dagrun_timeout`): a scheduler would fail each run that is older. At the release the start
  of the run gets that time too. Unfinished runs of DAGs that are not held start again now.
- The end of its runs: a scheduler would fail a run whose last task failed, and send the DAG's failure callback.
- A DAG that the restored database does not know would be created unpaused where its file asks for that. Until the end
  of the hold it is created held.

Triggers of the database apply this, so a DAG that is unpaused in the UI or by the REST API is released in full. Tasks
cannot reach the table, unlike a Variable. Only Postgres has these triggers, the one database of the stack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from sqlalchemy.orm import Session

QUEUE: Final = "airflow-ha.held/"
"""Prefix of the queue of held triggers; the rest is the queue that a trigger had."""
OUT_OF_REACH: Final = "interval '876000 hours'"
"""A century. In hours, because adding and subtracting it is exact in every time zone."""
IS_OUT_OF_REACH: Final = f"> now() + {OUT_OF_REACH} / 2"

CREATE: Final = f"""
CREATE TABLE IF NOT EXISTS airflow_ha_held_dag (dag_id varchar(250) PRIMARY KEY, restored_at timestamptz NOT NULL);

CREATE OR REPLACE FUNCTION airflow_ha_hold_dag() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO airflow_ha_held_dag
    SELECT NEW.dag_id, coalesce(max(restored_at), now()) FROM airflow_ha_held_dag ON CONFLICT DO NOTHING;
  NEW.is_paused := true;
  RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER airflow_ha_hold BEFORE INSERT ON dag FOR EACH ROW WHEN (NOT NEW.is_paused)
  EXECUTE FUNCTION airflow_ha_hold_dag();

CREATE OR REPLACE FUNCTION airflow_ha_release_dag() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE lost interval;
BEGIN
  DELETE FROM airflow_ha_held_dag WHERE dag_id = NEW.dag_id RETURNING now() - restored_at INTO lost;
  IF NOT FOUND THEN RETURN NULL; END IF;
  UPDATE task_instance SET trigger_timeout = trigger_timeout - {OUT_OF_REACH} + lost
    WHERE dag_id = NEW.dag_id AND trigger_timeout {IS_OUT_OF_REACH};
  UPDATE deadline SET deadline_time = deadline_time - {OUT_OF_REACH} + lost FROM dag_run
    WHERE dag_run.id = deadline.dagrun_id AND dag_run.dag_id = NEW.dag_id AND deadline_time {IS_OUT_OF_REACH};
  UPDATE dag_run SET start_date = start_date + lost
    WHERE dag_id = NEW.dag_id AND state = 'running' AND start_date < now() - lost;
  UPDATE trigger SET queue = nullif(substr(queue, {len(QUEUE) + 1}), '') WHERE starts_with(queue, '{QUEUE}')
    AND NOT EXISTS (SELECT FROM task_instance JOIN airflow_ha_held_dag USING (dag_id) WHERE trigger_id = trigger.id);
  RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER airflow_ha_release AFTER UPDATE OF is_paused ON dag FOR EACH ROW
  WHEN (OLD.is_paused AND NOT NEW.is_paused) EXECUTE FUNCTION airflow_ha_release_dag();
"""  # noqa: S608
"""The triggers of assets are held with those of tasks, and run again at the first release: the DAG processor keeps only
those of unpaused DAGs."""

HOLD: Final = f"""
INSERT INTO airflow_ha_held_dag SELECT dag_id, :restored_at FROM dag WHERE NOT is_paused AND dag_id <> ALL (:kept)
  ON CONFLICT DO NOTHING;
UPDATE dag SET is_paused = true FROM airflow_ha_held_dag held WHERE held.dag_id = dag.dag_id AND NOT is_paused;
UPDATE trigger SET queue = '{QUEUE}' || coalesce(queue, ''), triggerer_id = NULL
  WHERE coalesce(NOT starts_with(queue, '{QUEUE}'), true) AND (
    id IN (SELECT trigger_id FROM task_instance JOIN airflow_ha_held_dag USING (dag_id))
    OR id IN (SELECT trigger_id FROM asset_watcher));
UPDATE task_instance SET trigger_timeout = trigger_timeout + {OUT_OF_REACH} FROM airflow_ha_held_dag held
  WHERE held.dag_id = task_instance.dag_id AND state IN ('deferred', 'awaiting_input')
    AND NOT trigger_timeout {IS_OUT_OF_REACH};
UPDATE deadline SET deadline_time = deadline_time + {OUT_OF_REACH} FROM dag_run JOIN airflow_ha_held_dag USING (dag_id)
  WHERE dag_run.id = deadline.dagrun_id AND NOT missed AND NOT deadline_time {IS_OUT_OF_REACH};
UPDATE dag_run SET start_date = now() FROM dag
  WHERE dag.dag_id = dag_run.dag_id AND NOT is_paused AND state = 'running' AND start_date < :restored_at;
UPDATE dag_run SET last_scheduling_decision = NULL FROM dag
  WHERE dag.dag_id = dag_run.dag_id AND is_paused AND state = 'running';
"""  # noqa: S608
"""The last statement: schedulers end runs of paused DAGs, with their callbacks, if a task changed since that time."""

END: Final = """
DROP TRIGGER IF EXISTS airflow_ha_hold ON dag;
DROP TRIGGER IF EXISTS airflow_ha_release ON dag;
DROP FUNCTION IF EXISTS airflow_ha_hold_dag, airflow_ha_release_dag;
DROP TABLE IF EXISTS airflow_ha_held_dag;
"""

RUNNING: Final = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = current_user"
    " AND client_addr IS DISTINCT FROM inet_client_addr()"
)
RESTORED_AT: Final = text("SELECT coalesce(max(latest_heartbeat), now()) FROM job")
"""The restored point, to the few seconds between two heartbeats of Airflow's components."""


def refuse_other_clients(session: Session) -> None:
    """Exit if another client uses the database with Airflow's role: a scheduler would run tasks meanwhile."""
    if connections := session.scalar(RUNNING):
        raise SystemExit(
            f"cannot hold the DAGs: {connections} other connections use Airflow's database. hint: stop every Airflow"
            " component, then run this again"
        )


def hold_dags(session: Session, kept: Collection[str]) -> datetime:
    """Hold every unpaused DAG, and return the restored point. A second call loses nothing.

    Args:
        session: Is not committed here.
        kept: The ids of DAGs that stay unpaused.
    """
    run(session, CREATE)
    restored_at: datetime = session.execute(RESTORED_AT).scalar_one()
    values = {"restored_at": restored_at, "kept": list(kept)}
    for statement in filter(str.strip, HOLD.split(";")):
        clause = text(statement)
        session.execute(clause, {name: values[name] for name in clause.compile().params})
    return restored_at


def run(session: Session, statements: str) -> None:
    """Run statements that have no parameters."""
    session.connection().exec_driver_sql(statements)


def held_dags(session: Session) -> dict[str, datetime]:
    """Return the restored point by held DAG; DAGs that were deleted meanwhile are left out."""
    if session.scalar(text("SELECT to_regclass('airflow_ha_held_dag')")) is None:
        return {}
    rows = session.execute(text("SELECT dag_id, restored_at FROM airflow_ha_held_dag JOIN dag USING (dag_id)"))
    return dict(sorted(tuple(row) for row in rows))


def release(session: Session, dags: Collection[str]) -> dict[str, Any]:
    """Unpause held DAGs, and return the ids of those released and of those still held.

    Args:
        session: Is not committed here.
        dags: The ids; empty to release all and to end the hold, so that new DAG files start as they ask for.
    """
    held = held_dags(session)
    if unknown := sorted(set(dags) - held.keys()):
        raise SystemExit(
            f"cannot release {', '.join(unknown)}: not held. hint: run ./ops/stack restore show for the held DAGs"
        )
    released = sorted(dags or held)
    session.execute(text("UPDATE dag SET is_paused = false WHERE dag_id = ANY (:dags)"), {"dags": released})
    if not dags:
        run(session, END)
    return {"released": released, "held": sorted(held.keys() - set(released))}
