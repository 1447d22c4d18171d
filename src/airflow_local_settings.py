"""Local settings of Airflow: loads the patches, and re-exports the operator's own `airflow_local_settings`.

Airflow imports this module when a process starts
(https://airflow.apache.org/docs/apache-airflow/stable/howto/set-config.html#configuring-local-settings), and the image
puts it first on the path. The operator's module may be in $AIRFLOW_HOME/config, in the plugins folder or elsewhere on
the path, behind this one.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent


def _import_operator_settings() -> Any:
    """Return the next module of this name on the path, or None."""
    resolved = [Path(entry or ".").resolve() for entry in sys.path]
    behind = resolved.index(_HERE) + 1 if _HERE in resolved else 0
    path = [sys.path[number] for number in range(behind, len(resolved)) if resolved[number] != _HERE]
    # The module found may be a second copy of this file. It searches only behind itself: with an entry that is twice on
    # the path, the copies would find each other without end.
    path = globals().get("__behind__", path)
    for number, entry in enumerate(path):
        spec = importlib.machinery.PathFinder.find_spec(__name__, [entry])
        if spec is None or spec.loader is None:
            continue
        module: Any = importlib.util.module_from_spec(spec)
        module.__behind__ = path[number + 1 :]
        if spec.submodule_search_locations is not None:  # a package: relative imports read its path in sys.modules
            globals()["__path__"] = spec.submodule_search_locations
        spec.loader.exec_module(module)
        return module
    return None


_operator_settings = _import_operator_settings()
__all__: list[str] = []

# Other Python environments (@task.virtualenv, a shell with its own Python) inherit this path but have other packages:
# no patch is loaded in them.
if (
    os.environ.get("AIRFLOW_HA_COMPONENT")
    and not os.environ.get("PYTHON_OPERATORS_VIRTUAL_ENV_MODE")
    and importlib.util.find_spec("wrapt")
):
    from airflow import settings as _settings

    from airflow_ha.patches import engines as _engines
    from airflow_ha.patches import loader as _loader

    _create_engine = getattr(_operator_settings, "create_metadata_engine", _settings.create_metadata_engine)
    _create_async_engine = getattr(
        _operator_settings, "create_async_metadata_engine", _settings.create_async_metadata_engine
    )

    def create_metadata_engine(sql_alchemy_conn: str, **arguments: Any) -> Any:
        """Create the engine of the metadata database and attach the connection patches."""
        engine = _create_engine(sql_alchemy_conn, **arguments)
        _engines.metadata_engine_created(engine)
        return engine

    def create_async_metadata_engine(sql_alchemy_conn_async: str, **arguments: Any) -> Any:
        """Create the asynchronous engine of the metadata database and attach the connection patches."""
        engine = _create_async_engine(sql_alchemy_conn_async, **arguments)
        _engines.metadata_engine_created(engine.sync_engine)
        return engine

    __all__ += ["create_async_metadata_engine", "create_metadata_engine"]
    _loader.load()

if _operator_settings is not None:
    _names = [name for name in vars(_operator_settings) if not name.startswith("__")]
    for _name in _names:
        globals().setdefault(_name, getattr(_operator_settings, _name))
    __all__ += [_name for _name in getattr(_operator_settings, "__all__", _names) if _name not in __all__]
