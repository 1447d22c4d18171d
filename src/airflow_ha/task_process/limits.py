"""The limits of one task: settings of compose/.env, and the worker's own limits."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import Final

from airflow_ha.setting_error import SettingError
from airflow_ha.sizes import DOCKER_UNITS, GIB, parse_size
from airflow_ha.task_process import container_memory, container_pids

DEFAULT_SCRATCH: Final = 10 * GIB


@dataclass(frozen=True)
class Limits:
    """The limits of one task.

    Attributes:
        memory: The bytes of memory that its processes may use together; None means the worker's limit.
        allocation: The bytes that each of its processes may allocate; None means no limit.
        scratch: The bytes on disk of its files.
        threads: The processes and threads that it may have; None means the worker's limit.
        reserve: The bytes that tasks leave free on their disk; None means a share of the disk.
    """

    memory: int | None
    allocation: int | None
    scratch: int
    threads: int | None = None
    reserve: int | None = None


def size_setting(text: str) -> int | None:
    """Return a setting's size in bytes, as in Docker (`2g`, `512M`); None if it is empty.

    Raises:
        SettingError: The text is not a size.
    """
    if not text.strip():
        return None
    size = parse_size(text.strip().lower(), DOCKER_UNITS)
    if size is None:
        raise SettingError(f"cannot read {text!r}: not a size such as 512m or 2g")
    return size


def task_share(limit: int | None) -> int | None:
    """Return how much of a limit of the worker one task may use: half, or all if it has one slot."""
    if limit is None or os.environ.get("AIRFLOW__CELERY__WORKER_CONCURRENCY") == "1":
        return None
    return limit // 2


@functools.cache
def limits() -> Limits:
    """Return the limits from the environment (compose/.env) and the container.

    Raises:
        SettingError: A setting is not valid.
    """
    memory = size_setting(os.environ.get("AIRFLOW_HA_TASK_MEMORY_LIMIT", ""))
    threads = os.environ.get("AIRFLOW_HA_TASK_PIDS_LIMIT", "")
    if not (threads or "1").isdecimal():
        raise SettingError(f"cannot read AIRFLOW_HA_TASK_PIDS_LIMIT: {threads!r} is not a number of processes")
    return Limits(
        memory=memory or task_share(container_memory.memory_limit()),
        # Not the default: programs such as the JVM allocate more than they use.
        allocation=memory,
        scratch=size_setting(os.environ.get("AIRFLOW_HA_TASK_SCRATCH_LIMIT", "")) or DEFAULT_SCRATCH,
        threads=int(threads or 0) or task_share(container_pids.limit()),
        reserve=size_setting(os.environ.get("AIRFLOW_HA_TASK_DISK_RESERVE", "")),
    )
