"""A worker announces the queues that it consumes; loaded by workers (patches/loader.py)."""

from __future__ import annotations

import logging
from typing import Any

from celery import bootsteps, current_app

from airflow_ha.health.consumption_record import consumed_queues
from airflow_ha.queues import queue_registry

log = logging.getLogger(__name__)


def announce(consumer: Any) -> None:
    """Announce the queues that the consumer takes messages from right now; an error does not stop the worker."""
    try:
        if queues := consumed_queues(consumer):
            # The channel's pool for calls that wait for their answer, the same by which messages are acknowledged.
            with consumer.task_consumer.channel.conn_or_acquire() as client:
                queue_registry.announce(client, consumer.hostname, consumer.pool.num_processes, queues)
    except Exception as error:
        log.warning("cannot announce the worker's queues: %s", error)


class Announcement(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """Announces from the worker's event loop, so a hung worker announces nothing."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self.timers: list[Any] = []

    def start(self, consumer: Any) -> None:
        """Called by Celery whenever the consumer has its connection; the loop, which subscribes, begins after it."""
        self.timers = [
            consumer.timer.call_after(0, announce, (consumer,)),
            consumer.timer.call_repeatedly(queue_registry.ANNOUNCE_SECONDS, announce, (consumer,)),
        ]

    def stop(self, consumer: Any) -> None:
        """Called by Celery whenever the consumer loses its connection or ends."""
        for timer in self.timers:
            timer.cancel()
        self.timers = []


current_app.steps["consumer"].add(Announcement)
