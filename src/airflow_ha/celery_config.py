"""Celery's settings as the provider makes them; loading them loads what schedulers, workers and Flower need.

What all of them need, and what is the scheduler's alone: it has no other place from which it could be loaded.
"""

from __future__ import annotations

import os

from airflow.providers.celery.executors.default_celery import DEFAULT_CELERY_CONFIG

import airflow_ha.patches.redis_failover_errors

if os.environ.get("AIRFLOW_HA_COMPONENT") == "scheduler":
    import airflow_ha.patches.asset_triggered_runs
    import airflow_ha.patches.confirm_lost_heartbeats
    import airflow_ha.patches.dag_run_examination_order
    import airflow_ha.patches.hold_unconsumed_queues
    import airflow_ha.patches.keep_result_connection
    import airflow_ha.patches.release_leaked_slots
    import airflow_ha.patches.skip_idle_dag_runs  # noqa: F401 (all are loaded for their effect)
    from airflow_ha.patches import scheduler_notify_wakeup

    scheduler_notify_wakeup.listen()

CELERY_CONFIG = DEFAULT_CELERY_CONFIG
