"""Settings of suspension, and the state that a supervisor and its task's process share.

The shared memory is mapped before the fork. The supervisor writes the time for which it has suspended the task; the
task writes that it opted out, after its DAG file is parsed.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import TYPE_CHECKING, Any, Final

from airflow_ha.setting_error import SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping

SWITCH: Final = "AIRFLOW_HA_TASK_SUSPENSION"
LIMIT: Final = "AIRFLOW_HA_TASK_SUSPENSION_LIMIT"
DEFAULT_LIMIT_SECONDS: Final = 480.0
"""A token is valid for 690 s after an accepted heartbeat (compose/airflow.yaml), and a lease takes 30 s of them."""
OPT_OUT: Final = "suspend"
"""The key of `executor_config` that a DAG author sets to False."""

_HELD: Final = struct.Struct("d")
_OPTED_OUT: Final = struct.Struct("q")
_shared = mmap.mmap(-1, _HELD.size + _OPTED_OUT.size)


def share_with_tasks(**_: Any) -> None:
    """Map memory that only this process and its tasks share; Celery calls this in each process of the pool."""
    global _shared
    _shared = mmap.mmap(-1, _HELD.size + _OPTED_OUT.size)


def is_on(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether suspension is enabled.

    Raises:
        SettingError: The setting is neither `on` nor `off`.
    """
    value = environment.get(SWITCH) or "on"
    if value not in ("on", "off"):
        raise SettingError(f"cannot read {SWITCH}: {value!r} is neither on nor off")
    return value == "on"


def limit_seconds(environment: Mapping[str, str] = os.environ) -> float:
    """Return the longest suspension of a task.

    Raises:
        SettingError: The setting is not a positive number.
    """
    value = environment.get(LIMIT) or str(DEFAULT_LIMIT_SECONDS)
    if not value.replace(".", "", 1).isdecimal() or float(value) == 0:
        raise SettingError(f"cannot read {LIMIT}: {value!r} is not a positive number of seconds")
    return float(value)


def held_seconds() -> float:
    """Return the total time for which this supervisor's tasks were suspended."""
    return float(_HELD.unpack_from(_shared, 0)[0])


def add_held(seconds: float) -> None:
    """Add a suspension's duration, just before the task continues."""
    _HELD.pack_into(_shared, 0, held_seconds() + seconds)


def opt_out() -> None:
    """Mark, in the task's process, that it must not be suspended."""
    _OPTED_OUT.pack_into(_shared, _HELD.size, os.getpid())


def has_opted_out(pid: int) -> bool:
    """Return whether the task in this process must not be suspended."""
    return bool(_OPTED_OUT.unpack_from(_shared, _HELD.size)[0] == pid)


def forget() -> None:
    """Clear the opt-out: the kernel may reuse the process id."""
    _OPTED_OUT.pack_into(_shared, _HELD.size, 0)
