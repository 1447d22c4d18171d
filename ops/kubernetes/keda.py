"""Autoscaling of workers by KEDA, where WORKER_CEILING is set, by values of the chart.

KEDA asks the metadata database, by the log-in in a Secret that the operator creates (README.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from airflow_ha.queues.demand import workers_query
from ops.kubernetes.translation import PREFIX
from ops.worker_bounds import SCALE_IN_SECONDS, bounds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ops.kubernetes.translation import Cluster, Manifest

SECRET: Final = f"{PREFIX}-keda"
KEY: Final = "connection"
CONNECTION: Final = "AIRFLOW_CONN_AIRFLOW_DB"
"""The worker's variable from which the chart's ScaledObject takes the log-in."""


def worker_values(cluster: Cluster, env: Sequence[Manifest]) -> Manifest:
    """Return the values of workers that KEDA scales, over the other ones; none without a ceiling.

    Args:
        cluster: The cluster.
        env: The environment of a worker.
    """
    limits = bounds(cluster.settings)
    if limits is None:
        return {}
    # Optional: without the Secret KEDA reports an error, and workers still start.
    log_in = {"secretKeyRef": {"name": SECRET, "key": KEY, "optional": True}}
    behavior = {"scaleDown": {"stabilizationWindowSeconds": int(SCALE_IN_SECONDS)}}
    return {
        "env": [*env, {"name": CONNECTION, "valueFrom": log_in}],
        "keda": {
            "enabled": True,
            "minReplicaCount": limits.floor,
            "maxReplicaCount": limits.ceiling,
            "query": workers_query(cluster.settings["WORKER_QUEUES"], limits.slots),
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": behavior}},
        },
    }
