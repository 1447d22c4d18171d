"""A process of one component, as far as its patches: for test_patch_loader.py, with an operator's settings.

Run as a program; AIRFLOW_HA_COMPONENT names the component. Prints a line of JSON.
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

listening: list[Any] = []
listen, connect = event.listen, Signal.connect


def noted_listen(target: Any, name: str, function: Any, **options: Any) -> None:
    listening.append(function)
    listen(target, name, function, **options)


def noted_connect(self: Signal, *functions: Any, **options: Any) -> Any:
    listening.extend(functions)
    return connect(self, *functions, **options)


def files_of(thing: Any, depth: int = 6) -> set[str]:
    """The modules of our patches that something comes from."""
    if depth == 0 or thing is None:
        return set()
    if isinstance(thing, SimpleNamespace):
        return set().union(*(files_of(value, depth - 1) for value in vars(thing).values()))
    if isinstance(thing, FunctionType):
        path = Path(thing.__code__.co_filename)
        found = {path.stem} if path.parent.name == "patches" else set()
        return found | files_of(getattr(thing, "__wrapped__", None), depth - 1)
    inner = [vars(type(thing)).get(name) and getattr(thing, name) for name in ("__func__", "fget", "func")]
    kind = thing if isinstance(thing, type) else type(thing)
    parts = kind.__module__.split(".")
    own = {parts[-1]} if parts[:2] == ["airflow_ha", "patches"] else set()
    return own.union(*(files_of(one, depth - 1) for one in inner))


def main() -> None:
    component = os.environ["AIRFLOW_HA_COMPONENT"]
    event.listen, Signal.connect = noted_listen, noted_connect
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
    wired = set().union(*map(files_of, [*listening, *engines._METADATA, *engines._RESULTS]))
    for patch in registry.component_patches(component):
        for holder in holders(patch):
            inner = (
                [one for one in vars(holder).values() if isinstance(one, type)]
                if isinstance(holder, ModuleType)
                else []
            )
            for scope in (holder, *inner):
                wired |= set().union(*map(files_of, list(vars(scope).values())))
    found = {
        "wired": sorted(wired & set(registry.NAMES)),
        "states": {name: list(state) for name, state in loader.states().items()},
        "steps": steps,
        "timeout": settings.get_dagbag_import_timeout("file.py"),
        "own": [settings.OWN_SETTING, hasattr(settings, "load"), sys.modules["airflow_local_settings"].helper()],
        "engine": settings.get_engine().url.query.get("made_by"),
    }
    print("RESULT", json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
