"""A worker that lost its broker reconnects every second.

Problem: a worker reconnects after fixed delays of 2, 6, 12 and 20 s, so it finds a primary that was elected after 7 s
only after 12 s. `broker_connection_max_retries` exists, but no setting for the delays. kombu's transport options apply
to publishers only.
Patch: use shorter delays for the worker's consumer connection.
Applies to: celery 5.6.3, `celery.worker.consumer.consumer`.
Upstream issue: none found.
Remove when: celery has a setting for the delays; then `test_broker_reconnect_steps.py` fails.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from celery.worker.consumer.consumer import Consumer

STEPS: Final = {"interval_start": 0.2, "interval_step": 0.2, "interval_max": 1.0}
"""Seconds between retries; the same as for publishing (task_publish_retry_policy)."""

_ensure_connected: Any = Consumer.ensure_connected


def ensure_connected(self: Consumer, conn: Any) -> Any:
    """Wait for a broker connection with the upstream method, but with shorter delays."""
    conn.ensure_connection = partial(conn.ensure_connection, **STEPS)
    return _ensure_connected(self, conn)


def apply() -> None:
    """Shorten the reconnect delays of a worker's consumer."""
    Consumer.ensure_connected = ensure_connected
