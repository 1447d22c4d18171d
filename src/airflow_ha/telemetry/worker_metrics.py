"""What a Celery worker reports of itself: that it lives, its slots, how many are taken or blocked, and its disk.

Airflow's own metrics say nothing of a worker that has no task. Loaded by workers (patches/loader.py).
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
"""Seconds, as Airflow's own jobs."""

log = logging.getLogger(__name__)


def tell(consumer: Any) -> None:
    """Send a heartbeat, the worker's slots, how many are taken, or blocked, and how full the disk of the logs is.

    Nothing it meets stops the worker.
    """
    try:
        stats.incr("ha_worker_heartbeat")
        stats.gauge("ha_worker_slots", consumer.pool.num_processes)
        stats.gauge("ha_worker_busy_slots", len(state.active_requests))
        stats.gauge("ha_suspended_tasks", blocked_slots())
        stats.gauge("ha_disk_used_ratio", disk_used(conf.get("logging", "base_log_folder")))
    except Exception:
        log.warning("the worker's metrics were not sent", exc_info=True)


def disk_used(path: str) -> float:
    """The share of a file system that is taken, as `df` counts it: what is kept for root is not there to be used.

    The logs are in a volume of Docker's, beside those of Postgres and Redis: nothing else here sees that disk.
    """
    disk = shutil.disk_usage(path)
    return disk.used / (disk.used + disk.free)


class WorkerMetrics(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """Tells from the worker's event loop, for as long as its consumer is there: a hung loop tells nothing."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self.timers: list[Any] = []

    def start(self, consumer: Any) -> None:
        """Called by Celery whenever the consumer has subscribed to its queues."""
        # A worker's main process has no backend for its metrics until somebody makes one.
        stats.initialize(
            factory=stats_utils.get_stats_factory(),
            export_legacy_names=conf.getboolean("metrics", "legacy_names_on"),
        )
        tell(consumer)
        self.timers = [
            consumer.timer.call_repeatedly(HEARTBEAT_INTERVAL, tell, (consumer,)),
            consumer.timer.call_repeatedly(patch_gauge.INTERVAL, patch_gauge.send, (loader.states(),)),
        ]

    def stop(self, consumer: Any) -> None:
        """Called by Celery whenever the consumer loses its connection or ends."""
        for timer in self.timers:
            timer.cancel()
        self.timers = []


current_app.steps["consumer"].add(WorkerMetrics)
