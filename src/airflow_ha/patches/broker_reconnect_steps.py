"""A worker that lost its broker asks for it every second.

Problem: the steps in which a worker tries to reach its broker again are fixed, after 2 s, 6 s, 12 s and 20 s; a new
primary that is there after 7 s is found after 12. There is `broker_connection_max_retries`, and no setting for the
steps (kombu's transport options are for publishers).
Patch: the connection that the worker waits for has shorter steps.
Applies to: celery 5.6.3, `celery.worker.consumer.consumer`.
Upstream issue: none found.
Remove when: celery has a setting; then `test_broker_reconnect_steps.py` fails.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from celery.worker.consumer.consumer import Consumer

STEPS: Final = {"interval_start": 0.2, "interval_step": 0.2, "interval_max": 1.0}
"""Seconds between tries; as for publishing (task_publish_retry_policy)."""

_ensure_connected: Any = Consumer.ensure_connected


def ensure_connected(self: Consumer, conn: Any) -> Any:
    """Wait for a connection to the broker as upstream does, with shorter steps."""
    conn.ensure_connection = partial(conn.ensure_connection, **STEPS)
    return _ensure_connected(self, conn)


def apply() -> None:
    """Shorten the steps of a worker's consumer."""
    Consumer.ensure_connected = ensure_connected
