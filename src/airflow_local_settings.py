"""The hook by which Airflow loads the patches; whatever is in an `airflow_local_settings` of your own works as before.

Airflow imports this module at the start of each process
(https://airflow.apache.org/docs/apache-airflow/stable/howto/set-config.html#configuring-local-settings), and the image
has it first on its path. It re-exports yours: from $AIRFLOW_HOME/config, the plugins folder, or wherever it is.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent


def _operators() -> Any:
    """Return the next module of this name on the path, None if there is none."""
    resolved = [Path(entry or ".").resolve() for entry in sys.path]
    # Only behind this one: a second copy of it would find the first, and so on without end.
    behind = resolved.index(_HERE) + 1 if _HERE in resolved else 0
    path = [sys.path[number] for number in range(behind, len(resolved)) if resolved[number] != _HERE]
    spec = importlib.machinery.PathFinder.find_spec(__name__, path)
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    if spec.submodule_search_locations is not None:  # a package: its relative imports ask sys.modules for its path
        globals()["__path__"] = spec.submodule_search_locations
    spec.loader.exec_module(module)
    return module


_own = _operators()
__all__: list[str] = []

# Not in the environments that tasks run in beside ours (@task.virtualenv, or a shell with a Python of its own), which
# inherit our path and hold other packages, or another Python.
if (
    os.environ.get("AIRFLOW_HA_COMPONENT")
    and not os.environ.get("PYTHON_OPERATORS_VIRTUAL_ENV_MODE")
    and importlib.util.find_spec("wrapt")
):
    from airflow import settings as _settings

    from airflow_ha.patches import engines as _engines
    from airflow_ha.patches import loader as _loader

    _create = getattr(_own, "create_metadata_engine", _settings.create_metadata_engine)
    _create_async = getattr(_own, "create_async_metadata_engine", _settings.create_async_metadata_engine)

    def create_metadata_engine(sql_alchemy_conn: str, **arguments: Any) -> Any:
        """Create the engine of the metadata database, with the patches of its connections."""
        engine = _create(sql_alchemy_conn, **arguments)
        _engines.metadata_engine_created(engine)
        return engine

    def create_async_metadata_engine(sql_alchemy_conn_async: str, **arguments: Any) -> Any:
        """Create its asynchronous engine, with the same."""
        engine = _create_async(sql_alchemy_conn_async, **arguments)
        _engines.metadata_engine_created(engine.sync_engine)
        return engine

    __all__ += ["create_async_metadata_engine", "create_metadata_engine"]
    _loader.load()

if _own is not None:
    _names = [name for name in vars(_own) if not name.startswith("__")]
    for _name in _names:
        globals().setdefault(_name, getattr(_own, _name))
    __all__ += [_name for _name in getattr(_own, "__all__", _names) if _name not in __all__]
