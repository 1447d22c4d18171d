"""All dashboards, in the order of the list in Grafana."""

from __future__ import annotations

from typing import Final

from ops.dashboards.dags_and_tasks_board import DAGS_AND_TASKS
from ops.dashboards.data_tier_board import DATA_TIER
from ops.dashboards.overview_board import OVERVIEW
from ops.dashboards.schedulers_and_workers_board import SCHEDULERS_AND_WORKERS
from ops.dashboards.telemetry_board import TELEMETRY

DASHBOARDS: Final = {
    "overview": OVERVIEW,
    "dags-and-tasks": DAGS_AND_TASKS,
    "schedulers-and-workers": SCHEDULERS_AND_WORKERS,
    "data-tier": DATA_TIER,
    "telemetry": TELEMETRY,
}
"""By the name of the JSON file, without its extension."""
