"""A worker runs callbacks of the deployment's own code and of notifiers only.

Problem: a message to a worker may name any function of any module, with its arguments: `os.system`, for example.
Schedulers send such messages for the callbacks of deadlines, but so can whoever has a worker's log-in to Redis.
Patch: refuse a function or class that is not defined in the DAG file, in a module of the DAG folder or the plugins
folder, or as a notifier of an Airflow provider. CALLBACK_PATHS in compose/.env allows more. A name that a module only
imports does not count as defined in it.
Applies to: Airflow 3.3.2, `airflow.sdk.execution_time.callback_supervisor`.
Upstream issue: none found.
Remove when: workers authenticate the messages of schedulers.
"""

from __future__ import annotations

import ast
import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow.configuration import conf
from airflow.sdk._shared.module_loading import UNUSUAL_MODULE_PREFIX
from airflow.sdk.execution_time import callback_supervisor

from airflow_ha.patches.guard import definitions

if TYPE_CHECKING:
    from collections.abc import Iterable

NOTIFIER: Final = re.compile(r"airflow\.providers(\.\w+)+\.notifications(\.\w+)+")
ALLOWED: Final = tuple(
    path.strip() for path in os.environ.get("AIRFLOW_HA_CALLBACK_PATHS", "").split(",") if path.strip()
)
"""Import paths, and prefixes that end with a dot."""

_execute_callback: Any = callback_supervisor.execute_callback


def execute_callback(
    callback_path: str, callback_kwargs: dict[str, Any], dag_rel_path: Any, bundle_path: Any, log: Any
) -> tuple[bool, str | None]:
    """Call the upstream function if the path is allowed; otherwise return the reason."""
    if not is_allowed(callback_path, str(dag_rel_path or ""), str(bundle_path or "")):
        return False, (
            f"cannot run the callback {callback_path}: it is not defined in the DAG folder or the plugins folder. "
            "hint: define it there, or add its import path to CALLBACK_PATHS in compose/.env"
        )
    result: tuple[bool, str | None] = _execute_callback(callback_path, callback_kwargs, dag_rel_path, bundle_path, log)
    return result


def is_allowed(path: str, dag_file: str, bundle: str) -> bool:
    """Return whether a worker may call this path.

    Args:
        path: The import path of a function or class.
        dag_file: The DAG file's path in its bundle.
        bundle: The bundle's folder; empty without one.
    """
    if NOTIFIER.fullmatch(path) or any(
        path == allowed or (allowed.endswith(".") and path.startswith(allowed)) for allowed in ALLOWED
    ):
        return True
    module, _, name = path.rpartition(".")
    plugins = conf.get("core", "plugins_folder", fallback="")
    roots = [Path(folder).resolve() for folder in (bundle, plugins) if folder]
    file = Path(bundle, dag_file) if module.startswith(UNUSUAL_MODULE_PREFIX) else module_file(module)
    return file is not None and is_in(file, roots) and defines(file, name)


def module_file(module: str) -> Path | None:
    """Return the file of a module without importing it; None if there is none."""
    top, *rest = module.split(".")
    spec = find_spec(top) if top.isidentifier() else None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.has_location and spec.origin else None
    for folder in spec.submodule_search_locations or ():
        path = Path(folder, *rest)
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None


def is_in(file: Path, roots: Iterable[Path]) -> bool:
    """Return whether a file exists and is below one of these folders, also after its links are followed."""
    return file.is_file() and any(file.resolve().is_relative_to(root) for root in roots)


def defines(file: Path, name: str) -> bool:
    """Return whether a file defines a function or class of this name at its top level."""
    tree = ast.parse(file.read_bytes())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return any(isinstance(node, kinds) for node in definitions(tree, [name]))


def apply() -> None:
    """Check the path of each callback in its process."""
    callback_supervisor.execute_callback = execute_callback
