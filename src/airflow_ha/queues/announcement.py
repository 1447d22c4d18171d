"""A worker announces the queues that it consumes; workers load this module (patches/loader.py)."""

from __future__ import annotations

import logging
from typing import Any

from celery import bootsteps, current_app

from airflow_ha.health.consumption_record import consumed_queues
from airflow_ha.queues import queue_registry

log = logging.getLogger(__name__)


def announce(consumer: Any) -> None:
    """Announce the queues that the consumer consumes now; an error is logged and does not stop the worker."""
    try:
        if queues := consumed_queues(consumer):
            # The channel's pool of connections for synchronous commands, which also acknowledges messages.
            with consumer.task_consumer.channel.conn_or_acquire() as client:
                queue_registry.announce(client, consumer.hostname, consumer.pool.num_processes, queues)
    except Exception as error:
        log.warning("cannot announce the worker's queues: %s", error)


class Announcement(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """Announces the queues from the worker's event loop, so a hung worker announces nothing."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self.timers: list[Any] = []

    def start(self, consumer: Any) -> None:
        """Start the timers; Celery calls this on each connection, before the event loop subscribes to the queues."""
        self.timers = [
            consumer.timer.call_after(0, announce, (consumer,)),
            consumer.timer.call_repeatedly(queue_registry.ANNOUNCE_SECONDS, announce, (consumer,)),
        ]

    def stop(self, consumer: Any) -> None:
        """Stop the timers; Celery calls this when the consumer loses its connection or stops."""
        for timer in self.timers:
            timer.cancel()
        self.timers = []


current_app.steps["consumer"].add(Announcement)
