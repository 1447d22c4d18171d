"""Celery's settings as the provider makes them; loading them loads what schedulers, workers and Flower need.

What all of them need, and what is the scheduler's alone: it has no other place from which it could be loaded.
"""

from __future__ import annotations

import os

from airflow.providers.celery.executors.default_celery import DEFAULT_CELERY_CONFIG

import airflow_ha.upstream.redis_failover

if os.environ.get("AIRFLOW_HA_COMPONENT") == "scheduler":
    import airflow_ha.upstream.asset_runs
    import airflow_ha.upstream.heartbeat_patience
    import airflow_ha.upstream.leaked_slot
    import airflow_ha.upstream.result_connection
    import airflow_ha.upstream.result_engine
    import airflow_ha.upstream.run_fairness
    import airflow_ha.upstream.settled_run
    import airflow_ha.upstream.unconsumed_queue  # noqa: F401 (all are loaded for their effect)
    from airflow_ha.upstream import scheduler_wake

    scheduler_wake.listen()

CELERY_CONFIG = DEFAULT_CELERY_CONFIG
