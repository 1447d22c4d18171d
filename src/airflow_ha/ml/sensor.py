"""Wait for the data without holding a worker slot."""

# mypy: allow-subclassing-any
# (Airflow's base classes are not followed by the type checker.)

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_ha.ml import data_source
from airflow_ha.ml.permanent_failure import no_retry_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from airflow.sdk import Context


class DataTrigger(BaseTrigger):
    """Fires once the data is available.

    The standard provider's FileTrigger supports only local files; this one supports any object storage.

    Args:
        source: as in `data_source.exists`.
        poll_seconds: seconds between two checks.
        roots: as in `data_source.exists`; triggers of the version before have none.
    """

    def __init__(self, source: str, poll_seconds: float, roots: Sequence[str] = data_source.DEFAULT_ROOTS) -> None:
        super().__init__()
        self.source = source
        self.poll_seconds = poll_seconds
        self.roots = list(roots)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments from which a triggerer restores this trigger."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {"source": self.source, "poll_seconds": self.poll_seconds, "roots": self.roots},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Check until the data is available."""
        # In a thread: the reads of the connection and of the store block, and all triggers share one event loop.
        while not await asyncio.to_thread(data_source.exists, self.source, self.roots):
            await asyncio.sleep(self.poll_seconds)
        yield TriggerEvent({"source": self.source})


class DataSensor(BaseSensorOperator):
    """Succeeds when the data is available: at once, or after a wait in the triggerer.

    Args:
        source: as in `data_source.exists`; templated.
        kwargs: as for any sensor; `poke_interval` and `timeout` in seconds.
    """

    template_fields: Sequence[str] = ("source",)

    def __init__(self, *, source: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source = source

    def execute(self, context: Context) -> None:
        """Check once in the task, which is already running, then wait in the triggerer."""
        roots = data_source.allowed_roots()
        with no_retry_on(data_source.RefusedSourceError):
            is_available = data_source.exists(self.source, roots)
        if is_available:
            self.log.info("the data is available: %s", self.source)
            return
        self.log.info("waiting for %s, check interval %.0f s", self.source, self.poke_interval)
        self.defer(
            trigger=DataTrigger(self.source, self.poke_interval, roots),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout),
        )

    def execute_complete(self, context: Context, event: dict[str, Any]) -> None:
        """Finish the task after the trigger fired."""
        self.log.info("the data is available: %s", event["source"])
