"""A Celery worker's own metrics: heartbeat, slots, busy slots, suspended tasks and disk usage.

Airflow has no metric of an idle worker. Workers load this module (patches/loader.py).
"""

from __future__ import annotations

import logging
import shutil
from typing import Any

from airflow.configuration import conf
from airflow.observability import stats
from airflow.observability.metrics import stats_utils
from celery import bootsteps, current_app
from celery.worker import state

from airflow_ha.health.blocked_slots import blocked_slots
from airflow_ha.patches import loader, patch_gauge

HEARTBEAT_INTERVAL = 5.0
"""Seconds, as for Airflow's own jobs."""

log = logging.getLogger(__name__)


def report(consumer: Any) -> None:
    """Send all metrics of the worker; an error is logged and does not stop the worker."""
    try:
        stats.incr("ha_worker_heartbeat")
        stats.gauge("ha_worker_slots", consumer.pool.num_processes)
        stats.gauge("ha_worker_busy_slots", len(state.active_requests))
        stats.gauge("ha_suspended_tasks", blocked_slots())
        stats.gauge("ha_disk_used_ratio", disk_used(conf.get("logging", "base_log_folder")))
    except Exception:
        log.warning("cannot send the worker's metrics", exc_info=True)


def disk_used(path: str) -> float:
    """Return the used share of a file system (0 to 1) as `df` computes it, without the blocks reserved for root.

    The logs are in a Docker volume, on the disk of Postgres' and Redis' volumes, which no other metric covers.
    """
    disk = shutil.disk_usage(path)
    return disk.used / (disk.used + disk.free)


class WorkerMetrics(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """Reports from the worker's event loop while its consumer is connected, so a hung loop reports nothing."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self.timers: list[Any] = []

    def start(self, consumer: Any) -> None:
        """Start the timers; Celery calls this after the consumer has subscribed to its queues."""
        # A worker's main process does not initialise a metrics backend by itself.
        stats.initialize(
            factory=stats_utils.get_stats_factory(),
            export_legacy_names=conf.getboolean("metrics", "legacy_names_on"),
        )
        report(consumer)
        self.timers = [
            consumer.timer.call_repeatedly(HEARTBEAT_INTERVAL, report, (consumer,)),
            consumer.timer.call_repeatedly(patch_gauge.INTERVAL, patch_gauge.send, (loader.states(),)),
        ]

    def stop(self, consumer: Any) -> None:
        """Stop the timers; Celery calls this when the consumer loses its connection or stops."""
        for timer in self.timers:
            timer.cancel()
        self.timers = []


current_app.steps["consumer"].add(WorkerMetrics)
