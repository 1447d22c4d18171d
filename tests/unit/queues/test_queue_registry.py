"""A queue counts as consumed while its workers announce it, by Redis' clock."""

from __future__ import annotations

import pytest

from airflow_ha.queues import queue_registry


class Redis:
    """A fake with the four commands that the registry uses."""

    def __init__(self) -> None:
        self.now = 1000
        self.sets: dict[str, dict[bytes, float]] = {queue_registry.QUEUES: {}, queue_registry.WORKERS: {}}

    def time(self):
        return self.now, 0

    def zadd(self, key, scores):
        self.sets[key] |= {name.encode(): score for name, score in scores.items()}

    def zrange(self, key, first, last, *, withscores):
        assert (first, last, withscores) == (0, -1, True)
        return list(self.sets[key].items())

    def zremrangebyscore(self, key, lowest, highest):
        assert lowest == "-inf"
        self.sets[key] = {name: score for name, score in self.sets[key].items() if score > highest}


@pytest.fixture
def redis():
    return Redis()


def queues(redis):
    return queue_registry.consumed(redis).queues


def slots(redis):
    return queue_registry.consumed(redis).slots


def test_no_announcement_gives_none(redis):
    assert queue_registry.consumed(redis) is None


@pytest.mark.parametrize(("seconds", "consumed"), [(0, True), (59, True), (60, False)])
def test_queue_is_consumed_for_a_minute_after_an_announcement(redis, seconds, consumed):
    queue_registry.announce(redis, "a", 8, ("default", "größe"))
    redis.now += seconds
    assert queues(redis) == ({"default", "größe"} if consumed else set())


def test_each_queue_expires_separately(redis):
    queue_registry.announce(redis, "a", 2, ("gpu",))
    redis.now += 40
    queue_registry.announce(redis, "b", 8, ("default",))
    redis.now += 40
    assert (queues(redis), slots(redis)) == ({"default"}, {})


def test_slots_of_a_dedicated_queue_are_those_of_its_workers(redis):
    queue_registry.announce(redis, "a", 8, ("default", "etl"))
    queue_registry.announce(redis, "b", 2, ("gpu", "etl"))
    queue_registry.announce(redis, "c", 3, ("gpu", "render"))
    # Workers of the default queue consume `etl` too, so it has no slots of its own.
    assert slots(redis) == {"gpu": 5, "render": 3}


def test_replaced_or_changed_worker_counts_once(redis):
    queue_registry.announce(redis, "a", 2, ("gpu",))
    redis.now += 1
    queue_registry.announce(redis, "a", 2, ("gpu", "render"))
    assert slots(redis) == {"gpu": 2, "render": 2}
    redis.now += 61
    queue_registry.announce(redis, "b", 3, ("gpu",))
    assert slots(redis) == {"gpu": 3}
    assert len(redis.sets[queue_registry.WORKERS]) == 1


def test_announcement_outlives_a_restart_of_all_workers():
    assert queue_registry.CONSUMED_SECONDS > 45
    assert queue_registry.ANNOUNCE_SECONDS * 3 < queue_registry.CONSUMED_SECONDS
