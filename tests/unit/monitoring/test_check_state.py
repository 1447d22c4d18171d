"""What one check knows of the last."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_ha.monitoring import check_state
from airflow_ha.monitoring.check_state import Memory, Seen, Told, dump, load, remember
from tests.unit.monitoring.conftest import NOON, ago

TOLD = Told({"alertname": "A"}, {"summary": "s"}, ago(60), NOON, frozenset({"http://a", "http://b"}))


def test_it_comes_back_as_it_was_written():
    whole = Memory((TOLD, Told({"alertname": "B"}, {}, NOON)), {"pool:x": Seen(ago(60), NOON)})
    assert load(dump(whole)) == whole
    assert dump(load(dump(whole))) == dump(whole)


@pytest.mark.parametrize(
    "text", [None, "", "no json", "[]", "{}", '{"told": [{}], "seen": {}}', '{"told": 1, "seen": 2}']
)
def test_none_or_a_spoilt_one_is_empty(text, caplog):
    assert load(text) == Memory()
    assert ("cannot be read" in caplog.text) == bool(text)


def test_a_condition_lasts_since_it_was_first_seen():
    first = remember({}, {"pool:x": ago(60)}, ago(60))
    second = remember(first, {"pool:x": NOON}, NOON)
    assert Memory(seen=second).lasts("pool:x", NOON) == 60
    assert Memory(seen=second).lasts("pool:other", NOON) == 0


def test_a_condition_that_was_gone_starts_anew():
    first = remember({}, {"pool:x": ago(60)}, ago(60))
    second = remember(first, {}, ago(30))
    assert remember(second, {"pool:x": NOON}, NOON) == {"pool:x": Seen(NOON, NOON)}


def test_a_queued_task_is_the_same_after_the_scheduler_took_it_off_the_queue_for_a_moment():
    first = remember({}, {"queued:i": ago(150)}, ago(120))
    second = remember(first, {}, ago(60))
    third = remember(second, {"queued:i": ago(5)}, NOON)
    assert Memory(seen=third).lasts("queued:i", NOON) == 150


def test_a_queued_task_that_was_not_seen_for_long_is_forgotten():
    first = remember({}, {"queued:i": ago(600)}, NOON - check_state.UNSEEN_LIMIT)
    assert remember(first, {}, NOON) == {}


def test_a_flood_is_remembered_in_part_the_oldest_first():
    flood = {f"queued:{number}": NOON - timedelta(seconds=number) for number in range(check_state.REMEMBERED + 10)}
    kept = remember({}, flood, NOON)
    assert len(kept) == check_state.REMEMBERED
    assert "queued:0" not in kept
    assert f"queued:{check_state.REMEMBERED + 9}" in kept
