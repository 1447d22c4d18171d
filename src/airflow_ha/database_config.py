"""Airflow's settings of a connection to its database: none. What mends upstream's faults there is loaded with them.

So are the patches of the Execution API, the triggerer and the dag-processor: they have no other place from which they
could be loaded.
"""

from __future__ import annotations

import functools
import os
from typing import Any, Final

from airflow import settings

from airflow_ha.upstream import frozen_primary, last_host, lost_primary, scheduler_wake
from airflow_ha.upstream.engines import metadata_engine_created

COMPONENT: Final = os.environ.get("AIRFLOW_HA_COMPONENT")

if COMPONENT in ("api-server", "execution-api"):
    import airflow_ha.upstream.xcom_values
if COMPONENT == "execution-api":
    import airflow_ha.upstream.lean_middleware
    import airflow_ha.upstream.request_session
    import airflow_ha.upstream.setting_command
    import airflow_ha.upstream.solved_once
elif COMPONENT == "triggerer":
    import airflow_ha.upstream.masked_files
    import airflow_ha.upstream.trigger_fault
elif COMPONENT == "dag-processor":
    import airflow_ha.upstream.masked_files
    import airflow_ha.upstream.parser_exit  # noqa: F401

LOADED: Final = (frozen_primary, last_host, lost_primary, scheduler_wake)


def report_created(name: str) -> None:
    """Have Airflow report each engine that its function of this name makes."""
    create = getattr(settings, name)

    @functools.wraps(create)
    def created(*args: Any, **options: Any) -> Any:
        engine = create(*args, **options)
        metadata_engine_created(engine)
        return engine

    setattr(settings, name, created)


# Airflow reads CONNECT_ARGS just before it makes its engines.
report_created("create_metadata_engine")
report_created("create_async_metadata_engine")

CONNECT_ARGS: Final[dict[str, Any]] = {}
"""For `[database] sql_alchemy_connect_args` (compose/airflow.yaml)."""
