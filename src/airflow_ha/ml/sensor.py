"""Wait for the data without holding a worker slot."""

# mypy: allow-subclassing-any
# (Airflow's base classes are not followed by the type checker.)

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_ha.ml import data_source as data_source

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from airflow.sdk import Context


class DataTrigger(BaseTrigger):
    """Fires once the data is there.

    The standard provider's FileTrigger sees only local files; this one asks any object storage.

    Args:
        source: as in `source.exists`.
        poll_seconds: seconds between two looks.
    """

    def __init__(self, source: str, poll_seconds: float) -> None:
        super().__init__()
        self.source = source
        self.poll_seconds = poll_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Name the class and its arguments, for the triggerer that takes over."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {"source": self.source, "poll_seconds": self.poll_seconds},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until the data is there."""
        # In a thread: looking up the connection and asking the store block, and all triggers share the loop.
        while not await asyncio.to_thread(data_source.exists, self.source):
            await asyncio.sleep(self.poll_seconds)
        yield TriggerEvent({"source": self.source})


class DataSensor(BaseSensorOperator):
    """Succeeds when the data is there: at once if it is, through the triggerer if it is not yet.

    Args:
        source: as in `source.exists`; templated.
        kwargs: as of any sensor; `poke_interval` and `timeout` in seconds.
    """

    template_fields: Sequence[str] = ("source",)

    def __init__(self, *, source: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source = source

    def execute(self, context: Context) -> None:
        """Look once here, where it costs nothing more, then leave the waiting to the triggerer."""
        if data_source.exists(self.source):
            self.log.info("The data is there: %s", self.source)
            return
        self.log.info("Waiting for %s: looking every %.0f s", self.source, self.poke_interval)
        self.defer(
            trigger=DataTrigger(self.source, self.poke_interval),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout),
        )

    def execute_complete(self, context: Context, event: dict[str, Any]) -> None:
        """The trigger fired."""
        self.log.info("The data is there: %s", event["source"])
