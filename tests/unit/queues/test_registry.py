"""A queue counts as consumed for as long as its workers announce it, by Redis' clock."""

from __future__ import annotations

import pytest

from airflow_ha.queues import registry


class Redis:
    """The three commands that the registry uses."""

    def __init__(self) -> None:
        self.now = 1000
        self.scores: dict[bytes, float] = {}

    def time(self):
        return self.now, 0

    def zadd(self, key, scores):
        assert key == registry.KEY
        self.scores |= {name.encode(): score for name, score in scores.items()}

    def zrange(self, key, first, last, *, withscores):
        assert (key, first, last, withscores) == (registry.KEY, 0, -1, True)
        return list(self.scores.items())


@pytest.fixture
def redis():
    return Redis()


def test_before_any_announcement_nothing_is_known(redis):
    assert registry.consumed(redis) is None


@pytest.mark.parametrize(("seconds", "consumed"), [(0, True), (59, True), (60, False)])
def test_a_queue_is_consumed_for_a_minute_after_an_announcement(redis, seconds, consumed):
    registry.announce(redis, ("default", "größe"))
    redis.now += seconds
    assert registry.consumed(redis) == (frozenset({"default", "größe"}) if consumed else frozenset())


def test_each_queue_has_its_own_time(redis):
    registry.announce(redis, ("gpu",))
    redis.now += 40
    registry.announce(redis, ("default",))
    redis.now += 40
    assert registry.consumed(redis) == {"default"}


def test_an_announced_queue_outlives_a_restart_of_all_workers():
    assert registry.CONSUMED_SECONDS > 45
    assert registry.ANNOUNCE_SECONDS * 3 < registry.CONSUMED_SECONDS
