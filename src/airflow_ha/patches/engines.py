"""The SQLAlchemy engines that patches may change: the metadata database's and Celery's result backend's.

Patches register callbacks, and the code that creates an engine reports it here. Engines that a DAG file or a plugin
creates are never reported, so they stay unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Engine

    Attach = Callable[[Engine], None]

_METADATA: Final[list[Attach]] = []
_RESULTS: Final[list[Attach]] = []


def on_metadata_engine(attach: Attach) -> None:
    """Register a callback for every metadata engine created from now on; callbacks run in this order."""
    _METADATA.append(attach)


def metadata_engine_created(engine: Engine) -> None:
    """Call the registered callbacks. For an asynchronous engine, pass its `sync_engine`."""
    for attach in _METADATA:
        attach(engine)


def on_result_engine(attach: Attach) -> None:
    """Register a callback for every engine of Celery's result backend created from now on."""
    _RESULTS.append(attach)


def result_engine_created(engine: Engine) -> None:
    """Call the registered callbacks."""
    for attach in _RESULTS:
        attach(engine)
