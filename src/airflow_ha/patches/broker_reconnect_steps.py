"""A worker that lost its broker asks for it every second.

The fault, in celery 5.6.3: the steps in which a worker tries to reach its broker again are fixed, after 2 s, 6 s, 12 s
and 20 s; a new primary that is there after 7 s is found after 12. There is `broker_connection_max_retries`, and no
setting for the steps (kombu's transport options are for publishers).

The work-round: the connection that the worker waits for has shorter steps. No upstream issue asks for it;
https://docs.celeryq.dev/en/v5.6.3/userguide/configuration.html#std-setting-worker_consumer is the hook, named in
compose/airflow.yaml. It can go when celery has a setting: then `test_broker_reconnect_steps.py` says so.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from celery.worker.consumer import Consumer as UpstreamConsumer

STEPS: Final = {"interval_start": 0.2, "interval_step": 0.2, "interval_max": 1.0}
"""Seconds between tries; as for publishing (task_publish_retry_policy)."""


class Consumer(UpstreamConsumer):  # type: ignore[misc]  # celery has no types
    """Upstream's, with shorter steps."""

    def ensure_connected(self, conn: Any) -> Any:
        """Waits for a connection to the broker; as upstream's."""
        conn.ensure_connection = partial(conn.ensure_connection, **STEPS)
        return super().ensure_connected(conn)
