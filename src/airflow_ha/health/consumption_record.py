"""A Celery worker's own record that it consumes its queues; workers load it (patches/loader.py).

Every CONSUMPTION_INTERVAL seconds a timer in the worker's event loop checks the consumer: connected to the broker,
subscribed to its queues, and its channel polled by the loop. A hung loop writes no record. Nor does a consumer that
reconnected without its queues (https://github.com/apache/airflow/issues/63580).

A worker that stops consumes nothing for as long as its tasks take. It records that too: the guard of its
container would kill it after two minutes (compose/health/restart-when-unhealthy.sh).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery import bootsteps, current_app
from celery.signals import worker_shutting_down

from airflow_ha.health.freshness import CONSUMPTION_FILE, CONSUMPTION_INTERVAL, CONSUMPTION_MAX_AGE, STOPPING_FILE

if TYPE_CHECKING:
    from collections.abc import Sequence


def consumed_queues(consumer: Any) -> Sequence[str]:
    """Return the names of the queues that a worker's consumer consumes now; empty if it consumes none."""
    task_consumer = consumer.task_consumer
    if task_consumer is None or not consumer.connection or not consumer.connection.connected:
        return ()
    channel = task_consumer.channel
    # In kombu's Redis transport the loop polls the channels in its cycle, each for its active queues.
    if channel not in channel.connection.cycle._channels:
        return ()
    return tuple(queue.name for queue in task_consumer.queues if queue.name in channel.active_queues)


def record(consumer: Any) -> None:
    """Write the consumed queues to CONSUMPTION_FILE if there are any."""
    if queues := consumed_queues(consumer):
        Path(CONSUMPTION_FILE).write_text("\n".join(queues) + "\n")


def record_stop(**_: Any) -> None:
    """Create STOPPING_FILE, unless the worker had stopped to consume: then the guard ends it, and may kill it."""
    try:
        age = time.time() - Path(CONSUMPTION_FILE).stat().st_mtime
    except FileNotFoundError:
        return
    if age <= CONSUMPTION_MAX_AGE:
        Path(STOPPING_FILE).touch()


class ConsumptionRecord(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """Starts the record with the worker's consumer, and stops it on a lost connection."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self.timer: Any = None

    def start(self, consumer: Any) -> None:
        """Start the timer; Celery calls this after the consumer has subscribed to its queues."""
        record(consumer)
        self.timer = consumer.timer.call_repeatedly(CONSUMPTION_INTERVAL, record, (consumer,))

    def stop(self, consumer: Any) -> None:
        """Stop the timer; Celery calls this when the consumer loses its connection or stops."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


current_app.steps["consumer"].add(ConsumptionRecord)
worker_shutting_down.connect(record_stop, weak=False)
