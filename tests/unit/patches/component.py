"""A process of one component with its patches and an operator's settings, for test_patch_loader.py.

Run it as a program; AIRFLOW_HA_COMPONENT names the component. It prints a line of JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

from celery.utils.dispatch import Signal
from sqlalchemy import event

listeners: list[Any] = []
listen, connect = event.listen, Signal.connect


def record_listen(target: Any, name: str, function: Any, **options: Any) -> None:
    listeners.append(function)
    listen(target, name, function, **options)


def record_connect(self: Signal, *functions: Any, **options: Any) -> Any:
    listeners.extend(functions)
    return connect(self, *functions, **options)


def patch_modules(item: Any, depth: int = 6) -> set[str]:
    """Return the names of the patch modules that an object comes from."""
    if depth == 0 or item is None:
        return set()
    if isinstance(item, SimpleNamespace):
        return set().union(*(patch_modules(value, depth - 1) for value in vars(item).values()))
    if isinstance(item, FunctionType):
        path = Path(item.__code__.co_filename)
        module = {path.stem} if path.parent.name == "patches" else set()
        return module | patch_modules(getattr(item, "__wrapped__", None), depth - 1)
    inner = [vars(type(item)).get(name) and getattr(item, name) for name in ("__func__", "fget", "func")]
    kind = item if isinstance(item, type) else type(item)
    parts = kind.__module__.split(".")
    own = {parts[-1]} if parts[:2] == ["airflow_ha", "patches"] else set()
    return own.union(*(patch_modules(value, depth - 1) for value in inner))


def main() -> None:
    component = os.environ["AIRFLOW_HA_COMPONENT"]
    event.listen, Signal.connect = record_listen, record_connect
    from airflow import settings

    from airflow_ha.patches import engines, loader, registry
    from tests.unit.patches.loading import holders

    service = registry.service_of(component)
    importlib.import_module(loader.STARTS[service])
    steps = []
    if service in ("worker", "flower", "scheduler"):
        from airflow.providers.celery.executors.celery_executor import app

        if service == "worker":
            app.loader.import_default_modules()
            steps = sorted(step.__name__ for step in app.steps["consumer"])
    wired = set().union(*map(patch_modules, [*listeners, *engines._METADATA, *engines._RESULTS]))
    for patch in registry.component_patches(component):
        for holder in holders(patch):
            inner = (
                [value for value in vars(holder).values() if isinstance(value, type)]
                if isinstance(holder, ModuleType)
                else []
            )
            for scope in (holder, *inner):
                wired |= set().union(*map(patch_modules, list(vars(scope).values())))
    result = {
        "wired": sorted(wired & set(registry.NAMES)),
        "states": {name: list(state) for name, state in loader.states().items()},
        "steps": steps,
        "timeout": settings.get_dagbag_import_timeout("file.py"),
        "own": [settings.OWN_SETTING, hasattr(settings, "load"), sys.modules["airflow_local_settings"].helper()],
        "engine": settings.get_engine().url.query.get("made_by"),
    }
    print("RESULT", json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
