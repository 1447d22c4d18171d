"""A task's process sets up its logging without going through all loggers again and again.

Problem: each task's process, which has inherited every logger of its worker, sets up logging anew, and Python's
`logging.config.dictConfig` clears the caches of all loggers each time that it sets the level of one: hundreds of
Airflow's own, times all of them. A sixth of the CPU time of a task that does little.
Patch: the caches are cleared once, at the end. Nothing is logged meanwhile.
Applies to: Airflow 3.3.2, `airflow.sdk.execution_time.supervisor._configure_logs_over_json_channel`.
Upstream issue: none found.
Remove when: the test in `test_clear_logger_caches_once.py` that names upstream fails.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from typing import TYPE_CHECKING, Any

from airflow.sdk.execution_time import supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def caches_cleared_once() -> Iterator[None]:
    """Levels may be set in the block; what loggers know of them is forgotten at its end."""
    manager: Any = logging.root.manager
    manager._clear_cache = lambda: None  # the instance's own, before its class's
    try:
        yield
    finally:
        del manager._clear_cache
        manager._clear_cache()


def quickly(configure: Callable[[int], None]) -> Callable[[int], None]:
    """Upstream's setting up of a task's logging, with the caches cleared once."""

    @functools.wraps(configure)
    def configured(log_fd: int) -> None:
        with caches_cleared_once():
            configure(log_fd)

    return configured


def apply() -> None:
    """Clear the loggers' caches once."""
    supervisor._configure_logs_over_json_channel = quickly(supervisor._configure_logs_over_json_channel)
