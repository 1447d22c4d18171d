"""Observations of a healthy Airflow, which each test changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airflow_ha.monitoring.check_state import CheckState, current_conditions, update_conditions
from airflow_ha.monitoring.observations import Observations

NOON = datetime(2026, 9, 1, 12, 0, tzinfo=UTC)
SLOTS = 8


def ago(seconds: float, at: datetime = NOON) -> datetime:
    return at - timedelta(seconds=seconds)


@pytest.fixture
def observe_for():
    """Return the last observations, and the state, after the same was observed every minute for some minutes."""

    def observe_for(values, minutes):
        state = CheckState()
        for minute in range(minutes, -1, -1):
            observed = Observations(at=ago(60 * minute), **values)
            current = current_conditions(observed, SLOTS)
            state = CheckState(conditions=update_conditions(state.conditions, current, observed.at))
        return observed, state

    return observe_for
