"""The SQLAlchemy engines that patches may change: Airflow's metadata database, and Celery's results.

Patches register what they attach; whoever makes an engine reports it. An engine that a DAG file or a plugin makes is
never reported, so it stays as SQLAlchemy makes it.
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
    """Register what is called, in the order of registration, with every metadata engine created from now on."""
    _METADATA.append(attach)


def metadata_engine_created(engine: Engine) -> None:
    """Call what is registered; of an asynchronous engine, report its `sync_engine`."""
    for attach in _METADATA:
        attach(engine)


def on_result_engine(attach: Attach) -> None:
    """Register what is called, in the order of registration, with every engine of Celery's results."""
    _RESULTS.append(attach)


def result_engine_created(engine: Engine) -> None:
    """Call what is registered."""
    for attach in _RESULTS:
        attach(engine)
