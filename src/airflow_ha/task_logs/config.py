"""Airflow's logging configuration with BoundedTaskHandler, for `[logging] logging_config_class` of API servers."""

from __future__ import annotations

import copy
from typing import Any, Final

from airflow.config_templates.airflow_local_settings import (
    DEFAULT_LOGGING_CONFIG,
    DEFAULT_REMOTE_CONN_ID,
    REMOTE_TASK_LOG,
)

LOGGING_CONFIG: Final[dict[str, Any]] = copy.deepcopy(DEFAULT_LOGGING_CONFIG)
LOGGING_CONFIG["handlers"]["task"]["class"] = "airflow_ha.task_logs.handler.BoundedTaskHandler"

__all__ = ["DEFAULT_REMOTE_CONN_ID", "LOGGING_CONFIG", "REMOTE_TASK_LOG"]
