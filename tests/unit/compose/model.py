"""The compose files at the defaults, as ops/compose_model.py reads them, for tests."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

from ops import compose_model as compose_model_of_ops

COMPOSE = Path(__file__).parents[3] / "compose"
CONFIG_FILE_POSTGRES = COMPOSE / "postgres" / "airflow-ha.conf"
COMPOSE_NAMES = ("compose", "airflow", "data", "data-ha", "observability", "backup")
COMPOSE_FILES = [COMPOSE / f"{name}.yaml" for name in COMPOSE_NAMES]
"""compose.yaml and the files that it includes."""


def interpolated(text: str) -> str:
    """Return a text with each variable replaced by its default, or by its name if it is required."""
    return str(compose_model_of_ops.interpolated(text, {}))


@functools.cache
def _model() -> dict[str, Any]:
    model = compose_model_of_ops.read(COMPOSE, {})
    for network in filter(None, model["networks"].values()):
        network["internal"] = str(network.get("internal", False)).lower() == "true"
    for service in model["services"].values():
        limits = service["deploy"]["resources"]["limits"]
        limits["pids"] = int(limits["pids"])
        limits["memory"] = int(limits["memory"].removesuffix("m")) * 1024**2
        replicas = service["deploy"].get("replicas")
        if replicas is not None:
            service["deploy"]["replicas"] = int(replicas)
    return model


ONE_SHOTS = {"migrate", "otel-collector-volume"}
"""Services that end by themselves, before those that wait for them."""

NO_SHELL = {"otel-collector", "jaeger"}
"""Services whose official images hold one binary and no shell: Docker cannot check them from inside."""


def compose_model() -> dict[str, Any]:
    """Return all services, networks, volumes and secrets of compose/ at the defaults."""
    return copy.deepcopy(_model())
