"""A scheduler's copy of the consumed queues survives an outage of Redis."""

from __future__ import annotations

import pytest

from airflow_ha.queues.queue_registry import Consumed
from airflow_ha.queues.watch import Watch


class Source:
    """The result of the next read (queues, None or an error) and the clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.queues: frozenset[str] | Exception | None = None

    def __call__(self) -> Consumed | None:
        if isinstance(self.queues, Exception):
            raise self.queues
        return self.queues


@pytest.fixture
def source():
    return Source()


@pytest.fixture
def watch(source, monkeypatch):
    """A Watch without its thread."""
    monkeypatch.setattr(Watch, "_run", lambda self: None)
    return Watch(source, lambda: source.now)


def after(watch, source, queues, seconds=0.0):
    """Return the consumed queues after another read."""
    source.queues = Consumed(frozenset(queues)) if isinstance(queues, set) else queues
    source.now += seconds
    watch.refresh()
    consumed = watch.consumed()
    return None if consumed is None else consumed.queues


def test_first_call_reads_the_registry(watch, source):
    source.queues = Consumed(frozenset({"default"}))
    assert watch.consumed() == source.queues


def test_redis_outage_from_the_start_gives_none(watch, source):
    assert after(watch, source, ConnectionError()) is None


def test_consumed_queues_stay_consumed_in_a_redis_outage(watch, source):
    assert after(watch, source, {"default"}) == {"default"}
    assert after(watch, source, ConnectionError(), 2) == {"default"}
    assert after(watch, source, ConnectionError(), 600) == {"default"}
    # Redis is back; the workers of `default` are not yet, those of `gpu` are.
    assert after(watch, source, {"gpu"}, 2) == {"default", "gpu"}
    assert after(watch, source, {"gpu"}, 57) == {"default", "gpu"}
    assert after(watch, source, {"gpu"}, 2) == {"gpu"}


def test_unconsumed_queue_stays_unconsumed_in_a_redis_outage(watch, source):
    after(watch, source, {"default", "gpu"})
    after(watch, source, {"default"}, 100)
    assert after(watch, source, ConnectionError(), 2) == {"default"}


def test_emptied_registry_gives_none(watch, source):
    after(watch, source, {"default"})
    assert after(watch, source, None, 2) is None


def test_slots_come_from_the_last_read_or_before_the_outage(watch, source):
    after(watch, source, Consumed(frozenset({"a", "b"}), {"a": 2, "b": 2}))
    after(watch, source, ConnectionError(), 2)
    after(watch, source, Consumed(frozenset({"a"}), {"a": 4}), 2)
    assert watch.consumed() == Consumed(frozenset({"a", "b"}), {"a": 4, "b": 2})
