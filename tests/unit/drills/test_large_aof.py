"""A Redis primary with a large AOF, which is removed after the drill."""

from __future__ import annotations

import pytest

from ops.drills import environments
from ops.drills.catalogue import DRILLS
from ops.errors import StackError

GROWTH = 15_000_000


class Tier:
    """Three Redis nodes; the primary's AOF grows with each script."""

    def __init__(self, growth: int) -> None:
        self.growth = growth
        self.size = 1000
        self.primary = "redis-1"
        self.commands: list[tuple[str, str]] = []

    def target_containers(self, name, targets):
        return [self.primary] if targets[0].role == "primary" else ["redis-1", "redis-2", "redis-3"]

    def ask_redis(self, container, *command):
        if command == ("info", "persistence"):
            return f"# Persistence\r\nloading:0\r\naof_current_size:{self.size}\r"
        self.commands.append((container, command[0]))
        self.size += self.growth if command[0] == "eval" else 0
        return "1"


@pytest.fixture
def tier(monkeypatch, request):
    tier = Tier(getattr(request, "param", GROWTH))
    monkeypatch.setattr(environments, "target_containers", tier.target_containers)
    monkeypatch.setattr(environments.data_tier, "ask_redis", tier.ask_redis)
    return tier


REWRITTEN = [("redis-1", "bgrewriteaof"), ("redis-2", "bgrewriteaof"), ("redis-3", "bgrewriteaof")]


def test_aof_grows_before_the_drill_and_is_emptied_after_it(tier):
    with environments.large_aof("x", lambda _: None):
        assert tier.commands == [("redis-1", "eval")] * 3
        assert tier.size >= environments.AOF_BYTES
        tier.primary = "redis-2"
    assert tier.commands[3:] == [("redis-2", "unlink"), *REWRITTEN]


@pytest.mark.parametrize("tier", [0], indirect=True)
def test_aof_that_does_not_grow_stops_the_drill(tier):
    with pytest.raises(StackError, match="1000 bytes"), environments.large_aof("x", lambda _: None):
        pytest.fail("the drill ran")
    assert tier.commands == [("redis-1", "eval"), ("redis-1", "unlink"), *REWRITTEN]


def test_redis_without_answer_has_no_aof_size(tier, monkeypatch):
    monkeypatch.setattr(environments.data_tier, "ask_redis", lambda *_: None)
    assert environments.aof_bytes("redis-1") == 0


def test_large_aof_is_not_compared_with_stock():
    [large] = [drill for drill in DRILLS if drill.large_aof]
    assert "AOF" in large.sentence
    assert not environments.exists_on_stock(large)
