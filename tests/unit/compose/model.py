"""The compose files as Docker Compose reads them, without Docker."""

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
COMPOSE_NAMES = ("compose", "airflow", "data", "data-ha", "observability", "backup")
COMPOSE_FILES = [COMPOSE / f"{name}.yaml" for name in COMPOSE_NAMES]
"""compose.yaml and the files that it includes."""

INTERPOLATION = re.compile(r"\$\{(\w+)(?:(:-|:\?|:\+)([^}]*))?\}")


def interpolated(text: str) -> str:
    """Return a text with each variable replaced by its default, or by its name if it has none."""
    return INTERPOLATION.sub(lambda match: {":-": match[3], ":+": ""}.get(match[2], match[1]), text)


@functools.cache
def _parsed(name: str) -> dict[str, Any]:
    return yaml.safe_load(interpolated((COMPOSE / name).read_text()))


def merged(base: Any, override: Any) -> Any:
    """Return two values joined as compose joins a service with the one that it extends."""
    if isinstance(base, dict) and isinstance(override, dict):
        return base | {key: merged(base[key], value) if key in base else value for key, value in override.items()}
    if isinstance(base, list) and isinstance(override, list):
        return base + override
    return override


def extended(service: dict[str, Any], file: str) -> dict[str, Any]:
    """Return a service with what it takes over by `extends`."""
    own = {key: value for key, value in service.items() if key != "extends"}
    extends = service.get("extends")
    if extends is None:
        return own
    source = extends.get("file", file)
    return merged(extended(_parsed(source)["services"][extends["service"]], source), own)


@functools.cache
def _model() -> dict[str, Any]:
    model: dict[str, Any] = {"services": {}, "secrets": {}, "volumes": {}, "networks": {}}
    for name in ["compose.yaml", *_parsed("compose.yaml")["include"]]:
        # Through JSON: YAML anchors give several services the same object.
        part = json.loads(json.dumps(_parsed(name)))
        for section, content in model.items():
            content.update(part.get(section) or {})
        for service in part.get("services") or {}:
            model["services"][service] = extended(part["services"][service], name)
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
