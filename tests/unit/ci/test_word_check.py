"""The word check finds what the glossary replaces, in prose and in names."""

from __future__ import annotations

import pytest

from ops.ci.word_check import ALLOWED, MOST_ALLOWED, findings


@pytest.mark.parametrize(
    "line",
    [
        "# The scheduler is told of it.",
        "victim_count = 1",
        "class StruckTarget:",
        "alertTold: true",
        "Every service is whole again.",
        "to do: mend it",
        "retry each attempt",
    ],
)
def test_a_replaced_word_is_found_in_prose_and_names(line):
    assert list(findings("ops/example.py", line))


@pytest.mark.parametrize(
    "line",
    [
        "every service is healthy, and the well-known port answers",
        "self.untold = foretold",
        "one round trip, and round(3.2) attempts_lost",
        "standing instances",
    ],
)
def test_a_plain_line_has_no_finding(line):
    assert list(findings("ops/example.py", line)) == []


def test_an_allowed_use_is_allowed_only_in_its_files():
    assert list(findings("ops/bench/runner.py", "five rounds")) == []
    assert list(findings("ops/drills/runner.py", "five rounds"))


def test_the_allow_list_stays_short():
    assert len(ALLOWED) <= MOST_ALLOWED
    assert all(entry.reason for entry in ALLOWED)
