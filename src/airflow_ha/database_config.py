"""Airflow's settings of a connection to its database: none. What mends upstream's faults there is loaded with them."""

from __future__ import annotations

from typing import Any, Final

from airflow_ha.upstream import frozen_primary, last_host, lost_primary, scheduler_wake

LOADED: Final = (frozen_primary, last_host, lost_primary, scheduler_wake)
CONNECT_ARGS: Final[dict[str, Any]] = {}
"""For `[database] sql_alchemy_connect_args` (compose/airflow.yaml)."""
