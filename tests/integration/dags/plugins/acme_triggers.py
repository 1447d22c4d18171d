"""A team's own trigger, as a module in the plugins folder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent


class AcmeTrigger(BaseTrigger):
    """Fires at once, with the answer that it was given."""

    def __init__(self, answer: str) -> None:
        super().__init__()
        self.answer = answer

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "acme_triggers.AcmeTrigger", {"answer": self.answer}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        await asyncio.sleep(0)
        yield TriggerEvent(self.answer)
