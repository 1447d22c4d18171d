"""A scheduler's view of the consumed queues survives an outage of Redis."""

from __future__ import annotations

import pytest

from airflow_ha.queues.queue_registry import Consumed
from airflow_ha.queues.watch import Watch


class Source:
    """What is read: queues, None, or an error; and the time."""

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
    """A watch without its thread."""
    monkeypatch.setattr(Watch, "_run", lambda self: None)
    return Watch(source, lambda: source.now)


def after(watch, source, queues, seconds=0.0):
    """What is consumed after another read."""
    source.queues = Consumed(frozenset(queues)) if isinstance(queues, set) else queues
    source.now += seconds
    watch.refresh()
    consumed = watch.consumed()
    return None if consumed is None else consumed.queues


def test_the_first_answer_is_read_before_it_is_given(watch, source):
    source.queues = Consumed(frozenset({"default"}))
    assert watch.consumed() == source.queues


def test_nothing_is_known_while_redis_never_answered(watch, source):
    assert after(watch, source, ConnectionError()) is None


def test_what_was_consumed_stays_consumed_in_an_outage_of_redis(watch, source):
    assert after(watch, source, {"default"}) == {"default"}
    assert after(watch, source, ConnectionError(), 2) == {"default"}
    assert after(watch, source, ConnectionError(), 600) == {"default"}
    # Redis is back, its workers not yet; another queue's are.
    assert after(watch, source, {"gpu"}, 2) == {"default", "gpu"}
    assert after(watch, source, {"gpu"}, 57) == {"default", "gpu"}
    assert after(watch, source, {"gpu"}, 2) == {"gpu"}


def test_a_queue_that_nobody_consumed_does_not_count_in_an_outage(watch, source):
    after(watch, source, {"default", "gpu"})
    after(watch, source, {"default"}, 100)
    assert after(watch, source, ConnectionError(), 2) == {"default"}


def test_a_registry_that_was_emptied_holds_nothing_back(watch, source):
    after(watch, source, {"default"})
    assert after(watch, source, None, 2) is None


def test_slots_are_those_read_last_or_before_the_outage(watch, source):
    after(watch, source, Consumed(frozenset({"a", "b"}), {"a": 2, "b": 2}))
    after(watch, source, ConnectionError(), 2)
    after(watch, source, Consumed(frozenset({"a"}), {"a": 4}), 2)
    assert watch.consumed() == Consumed(frozenset({"a", "b"}), {"a": 4, "b": 2})
