"""Work-rounds that are there for one test, and not for the others of the same process."""

from __future__ import annotations

import importlib
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def loaded(name: str, holder: object, attribute: str) -> Iterator[None]:
    """A work-round that puts something in place of an attribute, for as long as the block lasts.

    Args:
        name: of its module, in airflow_ha.patches.
        holder: whose attribute.
        attribute: which.
    """
    upstreams, module = getattr(holder, attribute), f"airflow_ha.patches.{name}"
    importlib.import_module(module)
    try:
        yield
    finally:
        setattr(holder, attribute, upstreams)
        del sys.modules[module]
