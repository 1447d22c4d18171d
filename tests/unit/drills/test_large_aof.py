"""A Redis with much in its file, and what is left of that."""

from __future__ import annotations

import pytest

from ops.drills import environments
from ops.drills.catalogue import DRILLS
from ops.errors import StackError

GROWS = 15_000_000


class Tier:
    """Three Redis; the primary's file grows with each script."""

    def __init__(self, grows: int) -> None:
        self.grows = grows
        self.size = 1000
        self.primary = "one"
        self.asked: list[tuple[str, str]] = []

    def containers(self, name, victims):
        return [self.primary] if victims[0].role == "primary" else ["one", "two", "three"]

    def ask(self, container, *command):
        if command == ("info", "persistence"):
            return f"# Persistence\r\nloading:0\r\naof_current_size:{self.size}\r"
        self.asked.append((container, command[0]))
        self.size += self.grows if command[0] == "eval" else 0
        return "1"


@pytest.fixture
def tier(monkeypatch, request):
    made = Tier(getattr(request, "param", GROWS))
    monkeypatch.setattr(environments, "containers", made.containers)
    monkeypatch.setattr(environments.data_tier, "ask_redis", made.ask)
    return made


REWRITTEN = [("one", "bgrewriteaof"), ("two", "bgrewriteaof"), ("three", "bgrewriteaof")]


def test_its_file_grows_before_it_is_struck_and_the_next_primary_forgets_it_afterwards(tier):
    with environments.much_to_load("x", lambda _: None):
        assert tier.asked == [("one", "eval")] * 3
        assert tier.size >= environments.LADEN_BYTES
        tier.primary = "two"
    assert tier.asked[3:] == [("two", "unlink"), *REWRITTEN]


@pytest.mark.parametrize("tier", [0], indirect=True)
def test_a_redis_that_has_nothing_to_load_is_no_drill(tier):
    with pytest.raises(StackError, match="stays at 1000 bytes"), environments.much_to_load("x", lambda _: None):
        pytest.fail("it was struck")
    assert tier.asked == [("one", "eval"), ("one", "unlink"), *REWRITTEN]


def test_a_redis_that_does_not_answer_says_nothing_of_its_file(tier, monkeypatch):
    monkeypatch.setattr(environments.data_tier, "ask_redis", lambda *_: None)
    assert environments.file_bytes("one") == 0


def test_a_stock_airflow_is_not_laden():
    [laden] = [drill for drill in DRILLS if drill.laden]
    assert "with much to load" in laden.sentence
    assert not environments.has_stock(laden)
