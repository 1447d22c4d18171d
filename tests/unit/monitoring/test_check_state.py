"""The state that one check passes to the next."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_ha.monitoring import check_state
from airflow_ha.monitoring.check_state import CheckState, Condition, SentAlert, dump, load, update_conditions
from tests.unit.monitoring.conftest import NOON, ago

ALERT = SentAlert({"alertname": "A"}, {"summary": "s"}, ago(60), NOON, frozenset({"http://a", "http://b"}))


def test_dumped_state_loads_unchanged():
    state = CheckState((ALERT, SentAlert({"alertname": "B"}, {}, NOON)), {"pool:x": Condition(ago(60), NOON)})
    assert load(dump(state)) == state
    assert dump(load(dump(state))) == dump(state)


@pytest.mark.parametrize(
    "text", [None, "", "no json", "[]", "{}", '{"told": [{}], "seen": {}}', '{"told": 1, "seen": 2}']
)
def test_missing_or_invalid_text_gives_an_empty_state(text, caplog):
    assert load(text) == CheckState()
    assert (check_state.VARIABLE in caplog.text) == bool(text)


def test_condition_lasts_since_its_first_observation():
    first = update_conditions({}, {"pool:x": ago(60)}, ago(60))
    second = update_conditions(first, {"pool:x": NOON}, NOON)
    assert CheckState(conditions=second).duration("pool:x", NOON) == 60
    assert CheckState(conditions=second).duration("pool:other", NOON) == 0


def test_condition_that_returns_starts_again():
    first = update_conditions({}, {"pool:x": ago(60)}, ago(60))
    second = update_conditions(first, {}, ago(30))
    assert update_conditions(second, {"pool:x": NOON}, NOON) == {"pool:x": Condition(NOON, NOON)}


def test_requeued_task_keeps_its_first_queued_time():
    first = update_conditions({}, {"queued:i": ago(150)}, ago(120))
    second = update_conditions(first, {}, ago(60))
    third = update_conditions(second, {"queued:i": ago(5)}, NOON)
    assert CheckState(conditions=third).duration("queued:i", NOON) == 150


def test_queued_task_missing_for_long_is_dropped():
    first = update_conditions({}, {"queued:i": ago(600)}, NOON - check_state.UNSEEN_LIMIT)
    assert update_conditions(first, {}, NOON) == {}


def test_flood_of_conditions_keeps_the_oldest():
    flood = {f"queued:{number}": NOON - timedelta(seconds=number) for number in range(check_state.MAX_CONDITIONS + 10)}
    kept = update_conditions({}, flood, NOON)
    assert len(kept) == check_state.MAX_CONDITIONS
    assert "queued:0" not in kept
    assert f"queued:{check_state.MAX_CONDITIONS + 9}" in kept
