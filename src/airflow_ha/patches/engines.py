"""The engines of the metadata database, for patches of its connections: no other engine of the process is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Engine

_attach: list[Callable[[Engine], None]] = []


def on_metadata_engine(attach: Callable[[Engine], None]) -> None:
    """Call a function with each engine of the metadata database that is created from now on."""
    _attach.append(attach)


def metadata_engine_created(engine: Engine) -> None:
    """Hand an engine to the patches; called by airflow_local_settings, with the inner one of an asynchronous engine."""
    for attach in _attach:
        attach(engine)
