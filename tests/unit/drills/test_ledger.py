"""The figures that are counted from a ledger."""

from __future__ import annotations

import pytest

from ops.drills import ledger
from ops.drills.ledger import Entry


def one_try(index: int, start: float, end: float | None, *, task="short", number=1, host="a") -> list[Entry]:
    """Return the entries of one try, which has no end if it was lost."""
    entries = [Entry(task, index, number, "start", host, start)]
    return entries if end is None else [*entries, Entry(task, index, number, "end", host, end)]


def alive(index: int, at: float) -> Entry:
    return Entry("short", index, 1, "alive", "a", at)


def by_time(*tries: list[Entry]) -> list[Entry]:
    return sorted((entry for entries in tries for entry in entries), key=lambda entry: entry.at)


def test_task_that_never_completed_is_lost_even_if_never_started():
    entries = [*one_try(0, 1, 2), *one_try(1, 1, None)]
    assert ledger.lost_tasks(entries, {"short": 3, "long": 0}) == 2


def test_only_a_second_completion_counts_as_completed_twice():
    twice = [*one_try(0, 1, 2), *one_try(0, 3, 4, number=2)]
    retried = [*one_try(1, 1, None), *one_try(1, 3, 4, number=2)]
    assert ledger.tasks_completed_twice(twice + retried) == 1


def test_try_that_outlives_the_start_of_the_next_overlaps():
    retried = [*one_try(0, 1, None), alive(0, 2), *one_try(0, 4, 5, number=2)]
    overlapping = [*one_try(1, 1, None), *one_try(1, 4, 9, number=2), alive(1, 6)]
    assert ledger.overlapping_tasks(retried) == 0
    assert ledger.overlapping_tasks(by_time(retried, overlapping)) == 1


def test_try_that_outlives_the_next_but_one_overlaps():
    tries = [one_try(0, 1, 9), one_try(0, 4, 5, number=2), one_try(0, 6, 7, number=3)]
    assert ledger.overlapping_tasks(by_time(*tries)) == 1


def test_lost_tries_include_those_without_an_entry():
    entries = [*one_try(0, 1, 2), *one_try(1, 1, None), *one_try(1, 5, 6, number=2), *one_try(2, 9, 10, number=3)]
    assert ledger.lost_tries(entries) == 3


def test_interruption_is_the_longest_gap_after_the_fault():
    ends = [5.0, 10.0, 10.5, 14.0, 15.0]
    entries = [entry for index, end in enumerate(ends) for entry in one_try(index, end - 1, end)]
    assert ledger.longest_interruption(entries, since=10.0) == pytest.approx(3.5)


def test_interruption_includes_the_time_to_the_first_completion():
    assert ledger.longest_interruption(one_try(0, 1, 20.0), since=10.0) == pytest.approx(10.0)


def test_interruption_ignores_long_tasks():
    entries = [*one_try(0, 1, 11), *one_try(0, 1, 40, task="long"), *one_try(1, 1, 12)]
    assert ledger.longest_interruption(entries, since=10.0) == pytest.approx(1.0)


def test_running_tasks_are_those_started_and_not_completed():
    entries = by_time(one_try(0, 1, 9, host="a"), one_try(1, 2, None, host="a"), one_try(2, 3, None, host="b"))
    assert ledger.tasks_running_on(entries, {"a"}, at=5) == {("short", 0), ("short", 1)}
    assert ledger.tasks_running_on(entries, {"a"}, at=9.5) == {("short", 1)}


def test_rerun_takes_until_the_last_task_started_again():
    entries = [
        *one_try(0, 1, None),
        *one_try(1, 1, None),
        *one_try(0, 30, 31, number=2),
        *one_try(1, 45, 46, number=2),
    ]
    assert ledger.seconds_until_rerun(entries, {("short", 0), ("short", 1)}, since=10) == pytest.approx(35)


def test_alive_entry_is_neither_a_start_nor_a_completion():
    entries = [*one_try(0, 1, None), alive(0, 2), alive(0, 12), *one_try(0, 30, 31, number=2)]
    assert ledger.tasks_running_on(entries, {"a"}, at=5) == {("short", 0)}
    assert ledger.seconds_until_rerun(entries, {("short", 0)}, since=10) == pytest.approx(20)
    assert ledger.longest_interruption(entries, since=10) == pytest.approx(21)


def test_task_that_never_ran_again_has_no_rerun_time():
    assert ledger.seconds_until_rerun(one_try(0, 1, None), {("short", 0)}, since=10) is None


def test_try_without_an_entry_is_silent():
    entries = [*one_try(0, 1, 2, number=3), *one_try(0, 0, None), *one_try(1, 1, 2)]
    assert ledger.silent_tries(entries) == [("short", 0, 2)]
