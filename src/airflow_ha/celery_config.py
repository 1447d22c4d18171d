"""Celery's settings as the provider makes them; loading them loads what schedulers, workers and Flower all need."""

from __future__ import annotations

from airflow.providers.celery.executors.default_celery import DEFAULT_CELERY_CONFIG

import airflow_ha.upstream.redis_failover  # noqa: F401 (loaded for its effect)

CELERY_CONFIG = DEFAULT_CELERY_CONFIG
