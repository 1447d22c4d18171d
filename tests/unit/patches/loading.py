"""Apply a patch for one test, without an effect on other tests in the same process."""

from __future__ import annotations

import importlib
import sys
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from airflow_ha.patches import registry

if TYPE_CHECKING:
    from collections.abc import Iterator

MISSING = object()


def holders(patch: registry.Patch) -> list[Any]:
    """Return the modules and classes that a patch changes, according to its row."""
    changed: list[Any] = []
    for target in patch.replaces:
        module, _, name = target.partition(":")
        changed.append(holder := importlib.import_module(module))
        for part in name.split("."):
            holder = getattr(holder, part, None)
            if isinstance(holder, (type, ModuleType)):
                changed.append(holder)
    return changed


@contextmanager
def applied(name: str, *extra_holders: Any) -> Iterator[ModuleType]:
    """Import a patch again, and apply it for the duration of the block.

    Args:
        name: Name of the patch.
        extra_holders: Modules and classes that it changes in addition to its row.
    """
    module_name = f"airflow_ha.patches.{name}"
    patch = next(row for row in registry.PATCHES if row.name == name)
    places = {id(holder): holder for holder in (*holders(patch), *extra_holders)}.values()
    before = [(holder, dict(vars(holder))) for holder in places]
    listeners: list[tuple[Any, str, Any]] = []
    sys.modules.pop(module_name, None)
    module = importlib.import_module(module_name)
    listen, event.listen = event.listen, lambda *listener: (listeners.append(listener), listen(*listener))
    try:
        module.apply()
    finally:
        event.listen = listen
    changed = [
        (holder, name, attributes.get(name, MISSING))
        for holder, attributes in before
        for name, value in vars(holder).items()
        if attributes.get(name, MISSING) is not value
    ]
    try:
        yield module
    finally:
        for holder, attribute, value in changed:
            if value is MISSING:
                delattr(holder, attribute)
            else:
                setattr(holder, attribute, value)
        for listener in listeners:
            event.remove(*listener)
        sys.modules.pop(module_name, None)
