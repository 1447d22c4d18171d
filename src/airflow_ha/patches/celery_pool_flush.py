"""After a broker outage, a worker gives no task to a busy process.

Problem: when a worker loses its broker, `AsynPool.flush` loses the list of busy pool processes. New tasks are assigned
to them and wait behind their running task, sometimes for hours, while other processes are idle. `task_queued_timeout`
does not help, because the worker has already accepted the task. Every Redis failover during long tasks triggers it.
Patch: processes that run an accepted task stay busy, as in the upstream pull request.
Applies to: celery 5.6.3, `celery.concurrency.asynpool`.
Upstream issue: https://github.com/celery/celery/pull/10346
Remove when: the test in `test_celery_pool_flush.py` that names upstream fails.
"""

from __future__ import annotations

from typing import Any

from celery.concurrency.asynpool import AsynPool

_flush: Any = AsynPool.flush


def flush(self: AsynPool) -> None:
    """Call the upstream method, then mark the processes that run an accepted task as busy again."""
    busy = set(self._busy_workers)
    _flush(self)
    owners = (job._write_to or job._scheduled_for for job in self._cache.values() if job._accepted)
    self._busy_workers.update(busy & {process.inqW_fd for process in owners if process and process._is_alive()})


def apply() -> None:
    """Keep processes marked as busy when the broker is lost."""
    AsynPool.flush = flush
