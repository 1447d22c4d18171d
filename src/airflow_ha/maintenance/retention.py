"""The limits of retention, from the environment; compose/README.md describes each setting."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from airflow_ha.setting_error import SettingError
from airflow_ha.sizes import GIB, MIB, TIB, parse_size

if TYPE_CHECKING:
    from collections.abc import Mapping

UNITS: Final = {"m": MIB, "g": GIB, "t": TIB}
DAY: Final = 86400.0

EXPIRED_DAYS: Final = 7
"""Days after which rows go that are of no use once they expired: results, sessions, tokens, connection tests."""


@dataclass(frozen=True)
class Limits:
    """What is kept. A number of days of 0 keeps everything.

    Attributes:
        hour: The hour of the day, in UTC, at which a run starts.
        runs_days: Days after the end of a DAG run.
        monitoring_days: The same for DAGs with the tag `monitoring`, which run every minute; also for their logs.
        audit_days: Days of the audit log.
        logs_days: Days after the last line of a log file.
        logs_bytes: Size of all log files together; 0 for no limit.
        disk_percent: Use of the disk above which the oldest logs go; 100 for no limit.
        artifacts_days: Days after the last change in the artifacts of a pipeline run.
        models: Number of registered models.
    """

    hour: int
    runs_days: int
    monitoring_days: int
    audit_days: int
    logs_days: int
    logs_bytes: int
    disk_percent: int
    artifacts_days: int
    models: int


def read(environment: Mapping[str, str] = os.environ) -> Limits:
    """Return the limits in the environment.

    Raises:
        SettingError: a limit is missing or invalid. Nothing may be removed by a misread limit.
    """

    def number(name: str) -> int:
        text = environment.get(name, "")
        if not text.isdecimal():
            raise SettingError(f"cannot read {name}: {text!r} is not a number. hint: correct it in compose/.env")
        return int(text)

    def size(name: str) -> int:
        text = environment.get(name, "")
        found = 0 if text == "0" else parse_size(text, UNITS)
        if found is None:
            raise SettingError(f"cannot read {name}: {text!r} is not a size. hint: correct it in compose/.env")
        return found

    return Limits(
        hour=number("MAINTENANCE_HOUR"),
        runs_days=number("RETENTION_RUNS_DAYS"),
        monitoring_days=number("RETENTION_MONITORING_DAYS"),
        audit_days=number("RETENTION_AUDIT_DAYS"),
        logs_days=number("RETENTION_LOGS_DAYS"),
        logs_bytes=size("RETENTION_LOGS_SIZE"),
        disk_percent=number("RETENTION_DISK_PERCENT"),
        artifacts_days=number("RETENTION_ARTIFACTS_DAYS"),
        models=number("RETENTION_MODELS"),
    )
