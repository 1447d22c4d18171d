"""What is counted from a ledger."""

from __future__ import annotations

import pytest

from ops.drills import ledger
from ops.drills.ledger import Entry


def attempt(number: int, begin: float, end: float | None, *, task="short", attempt=1, host="a") -> list[Entry]:
    lines = [Entry(task, number, attempt, "start", host, begin)]
    return lines if end is None else [*lines, Entry(task, number, attempt, "end", host, end)]


def test_a_task_that_never_ended_is_lost_also_when_it_never_began():
    entries = [*attempt(0, 1, 2), *attempt(1, 1, None)]
    assert ledger.lost(entries, {"short": 3, "long": 0}) == 2


def test_a_task_that_ended_twice_is_doubled_and_one_that_only_began_twice_is_not():
    twice = [*attempt(0, 1, 2), *attempt(0, 3, 4, attempt=2)]
    again = [*attempt(1, 1, None), *attempt(1, 3, 4, attempt=2)]
    assert ledger.doubled(twice + again) == 1


def alive(number: int, at: float, *, attempt=1) -> Entry:
    return Entry("short", number, attempt, "alive", "a", at)


def test_an_attempt_that_goes_on_beside_its_successor_is_seen_even_if_it_never_ends():
    again = [*attempt(0, 1, None), alive(0, 2), *attempt(0, 4, 5, attempt=2)]
    at_once = [*attempt(1, 1, None), *attempt(1, 4, 9, attempt=2), alive(1, 6)]
    assert ledger.overlapping(again) == 0
    assert ledger.overlapping(sorted(again + at_once, key=lambda entry: entry.at)) == 1


def test_one_that_ends_beside_the_attempt_after_the_next_is_seen_too():
    attempts = [attempt(0, 1, 9), attempt(0, 4, 5, attempt=2), attempt(0, 6, 7, attempt=3)]
    assert ledger.overlapping(sorted((entry for one in attempts for entry in one), key=lambda entry: entry.at)) == 1


def test_attempts_beyond_the_first_are_lost_also_those_that_never_wrote_a_line():
    entries = [*attempt(0, 1, 2), *attempt(1, 1, None), *attempt(1, 5, 6, attempt=2), *attempt(2, 9, 10, attempt=3)]
    assert ledger.attempts_lost(entries) == 3


def test_the_interruption_is_the_longest_gap_between_the_ends_of_short_tasks_after_the_fault():
    ends = [5.0, 10.0, 10.5, 14.0, 15.0]
    entries = [entry for number, end in enumerate(ends) for entry in attempt(number, end - 1, end)]
    assert ledger.interruption(entries, since=10.0) == pytest.approx(3.5)


def test_the_time_from_the_fault_to_the_first_end_counts_as_interruption():
    assert ledger.interruption(attempt(0, 1, 20.0), since=10.0) == pytest.approx(10.0)


def test_long_tasks_are_no_part_of_the_stream():
    entries = [*attempt(0, 1, 11), *attempt(0, 1, 40, task="long"), *attempt(1, 1, 12)]
    assert ledger.interruption(entries, since=10.0) == pytest.approx(1.0)


def test_what_ran_on_a_host_at_a_moment():
    entries = sorted(
        [*attempt(0, 1, 9, host="a"), *attempt(1, 2, None, host="a"), *attempt(2, 3, None, host="b")],
        key=lambda entry: entry.at,
    )
    assert ledger.running_on(entries, {"a"}, at=5) == {("short", 0), ("short", 1)}
    assert ledger.running_on(entries, {"a"}, at=9.5) == {("short", 1)}


def test_how_long_until_all_that_was_lost_ran_again():
    entries = [
        *attempt(0, 1, None),
        *attempt(1, 1, None),
        *attempt(0, 30, 31, attempt=2),
        *attempt(1, 45, 46, attempt=2),
    ]
    assert ledger.run_again_after(entries, {("short", 0), ("short", 1)}, since=10) == pytest.approx(35)


def test_a_sign_of_life_is_neither_an_end_nor_a_new_beginning():
    entries = [*attempt(0, 1, None), alive(0, 2), alive(0, 12), *attempt(0, 30, 31, attempt=2)]
    assert ledger.running_on(entries, {"a"}, at=5) == {("short", 0)}
    assert ledger.run_again_after(entries, {("short", 0)}, since=10) == pytest.approx(20)
    assert ledger.interruption(entries, since=10) == pytest.approx(21)


def test_what_never_ran_again_has_no_time():
    assert ledger.run_again_after(attempt(0, 1, None), {("short", 0)}, since=10) is None


def test_an_attempt_that_never_got_to_its_first_line_is_known_by_the_next():
    entries = [*attempt(0, 1, 2, attempt=3), *attempt(0, 0, None), *attempt(1, 1, 2)]
    assert ledger.silent(entries) == [("short", 0, 2)]
