"""Airflow's settings of a connection to its database: none. What mends upstream's faults there is loaded with them.

So are the patches of the Execution API, the triggerer and the dag-processor: they have no other place from which they
could be loaded.
"""

from __future__ import annotations

import os
from typing import Any, Final

from airflow_ha.patches import (
    close_stale_primary_connections,
    db_connect_retry,
    prefer_last_good_host,
    scheduler_notify_wakeup,
)

COMPONENT: Final = os.environ.get("AIRFLOW_HA_COMPONENT")

if COMPONENT in ("api-server", "execution-api"):
    import airflow_ha.patches.bound_xcom_reads
if COMPONENT == "execution-api":
    import airflow_ha.patches.cache_config_commands
    import airflow_ha.patches.inline_api_middleware
    import airflow_ha.patches.open_session_on_event_loop
    import airflow_ha.patches.reuse_cadwyn_dependencies
elif COMPONENT == "triggerer":
    import airflow_ha.patches.isolate_trigger_faults
    import airflow_ha.patches.mask_mounted_secrets
elif COMPONENT == "dag-processor":
    import airflow_ha.patches.mask_mounted_secrets
    import airflow_ha.patches.report_parser_exit  # noqa: F401

LOADED: Final = (close_stale_primary_connections, prefer_last_good_host, db_connect_retry, scheduler_notify_wakeup)
CONNECT_ARGS: Final[dict[str, Any]] = {}
"""For `[database] sql_alchemy_connect_args` (compose/airflow.yaml)."""
