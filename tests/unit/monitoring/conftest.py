"""What the checks see, with everything well unless a test says otherwise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airflow_ha.monitoring.check_state import Memory, conditions, remember
from airflow_ha.monitoring.observations import Observations

NOON = datetime(2026, 9, 1, 12, 0, tzinfo=UTC)
SLOTS = 8


def ago(seconds: float, at: datetime = NOON) -> datetime:
    return at - timedelta(seconds=seconds)


@pytest.fixture
def watch():
    """What is remembered after the same was seen every minute, for some minutes."""

    def watch(see, minutes):
        memory = Memory()
        for minute in range(minutes, -1, -1):
            seen = Observations(at=ago(60 * minute), **see)
            memory = Memory(seen=remember(memory.seen, conditions(seen, SLOTS), seen.at))
        return seen, memory

    return watch
