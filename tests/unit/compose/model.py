"""The compose files as Docker would read them, without Docker."""

from __future__ import annotations

import copy
import functools
import json
import re
from pathlib import Path
from typing import Any

import yaml

COMPOSE = Path(__file__).parents[3] / "compose"
CONFIG_FILE_POSTGRES = COMPOSE / "postgres" / "airflow-ha.conf"

INTERPOLATION = re.compile(r"\$\{(\w+)(?:(:-|:\?)([^}]*))?\}")


def interpolated(text: str) -> str:
    """Variables replaced by their defaults; one without a default by its name."""
    return INTERPOLATION.sub(lambda found: found[3] if found[2] == ":-" else found[1], text)


@functools.cache
def _model() -> dict[str, Any]:
    merged: dict[str, Any] = {"services": {}, "secrets": {}, "volumes": {}, "networks": {}}
    entry = yaml.safe_load(interpolated((COMPOSE / "compose.yaml").read_text()))
    for name in ["compose.yaml", *entry["include"]]:
        part = yaml.safe_load(interpolated((COMPOSE / name).read_text()))
        for section, content in merged.items():
            content.update(part.get(section) or {})
    # What the files share by anchors is each service's own here.
    merged = json.loads(json.dumps(merged))
    for service in merged["services"].values():
        limits = service["deploy"]["resources"]["limits"]
        limits["pids"] = int(limits["pids"])
        limits["memory"] = int(limits["memory"].removesuffix("m")) * 1024**2
        replicas = service["deploy"].get("replicas")
        if replicas is not None:
            service["deploy"]["replicas"] = int(replicas)
    return merged


ONE_SHOTS = {"migrate", "otel-collector-volume"}
"""Services that end by themselves, before those that wait for them."""

NO_SHELL = {"otel-collector", "jaeger"}
"""Services whose official images hold one binary and no shell: Docker cannot check them from inside."""


def compose_model() -> dict[str, Any]:
    """All services, networks, volumes and secrets of compose/, at the defaults."""
    return copy.deepcopy(_model())
