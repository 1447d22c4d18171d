"""What to do about missed runs."""

from __future__ import annotations

import pytest

from airflow_ha.restored import missed_runs


@pytest.mark.parametrize(
    ("catchup", "missed", "started", "advice"),
    [
        (True, 3, 3, [missed_runs.CATCHUP]),
        (False, 3, 1, ["the release starts the last"]),
        (False, 1, 0, ["the release starts none"]),
        (False, 0, 0, [missed_runs.NOTHING]),
    ],
)
def test_advice_follows_catchup(catchup, missed, started, advice):
    text = missed_runs.what_to_do(catchup, missed, started, [])
    assert all(part in text for part in advice)


def test_a_schedule_of_assets_and_time_gets_both_advices():
    text = missed_runs.what_to_do(False, 1, 1, ["table"])
    assert text.startswith(missed_runs.ASSETS)
    assert "the release starts the last" in text
