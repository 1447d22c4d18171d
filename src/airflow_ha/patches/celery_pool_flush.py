"""After the broker was away, a task is given to a process that is free.

Problem: when a worker loses its broker, `AsynPool.flush` forgets which processes of its pool are busy. The next tasks
are handed to these as to any other and wait behind what runs there, for hours if that takes hours, while others are
idle. `task_queued_timeout` does not help, since the worker has the task. Every failover of Redis beside long tasks met
it.
Patch: processes that run an accepted task still count as busy afterwards, as in upstream's pull request.
Applies to: celery 5.6.3, `celery.concurrency.asynpool`.
Upstream issue: https://github.com/celery/celery/pull/10346
Remove when: the test in `test_celery_pool_flush.py` that names upstream fails.
"""

from __future__ import annotations

from typing import Any

from celery.concurrency.asynpool import AsynPool

_flush: Any = AsynPool.flush


def flush(self: AsynPool) -> None:
    """As upstream's, which forgets all that `self` was writing; what its processes run is remembered."""
    busy = set(self._busy_workers)
    _flush(self)
    owners = (job._write_to or job._scheduled_for for job in self._cache.values() if job._accepted)
    self._busy_workers.update(busy & {process.inqW_fd for process in owners if process and process._is_alive()})


def apply() -> None:
    """Remember busy processes when the broker is lost."""
    AsynPool.flush = flush
