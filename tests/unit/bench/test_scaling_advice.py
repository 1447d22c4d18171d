"""What to change first quotes what was measured, and says nothing of what was not."""

from __future__ import annotations

import re

import pytest

from ops.bench import bench_results, scaling_advice
from ops.bench.comparisons import COMPARISONS
from ops.bench.scaling_advice import ADVICE, Advice, Quote
from ops.bench.statistics import Result

WORKERS = Result("workers", {"1 worker": [{"s": 2.0}] * 3, "4 workers": [{"s": 5.0}] * 3}, "1 worker")
ADVISED = Advice("Do this.", "One has {}, four {} times that.", (
    Quote("workers", "1 worker", "s"), Quote("workers", "4 workers", "s", "1 worker"),
))  # fmt: skip


def test_figures_are_quoted_from_the_results():
    assert ADVISED.text([WORKERS]) == "Do this. One has 2, four 2.50 times that."


@pytest.mark.parametrize("kept", [[], [Result("workers", {"1 worker": [{"s": 2.0}]}, "1 worker")]])
def test_a_sentence_with_a_figure_that_was_not_measured_is_left_out(kept):
    assert ADVISED.text(kept) == "Do this."


def test_every_advice_quotes_as_many_figures_as_its_sentence_has_room_for():
    assert [advice.measured.count("{}") for advice in ADVICE] == [len(advice.quotes) for advice in ADVICE]


def test_every_quote_is_of_a_bench_that_there_is_and_of_its_own_ratio():
    bases = {one.name: one.base for one in COMPARISONS}
    for quote in (quote for advice in ADVICE for quote in advice.quotes):
        assert quote.bench in bench_results.SENTENCES
        assert quote.base in ("", bases.get(quote.bench))


def test_what_it_leads_to_is_there():
    links = re.findall(r"\]\((.*?)\)", scaling_advice.section([]))
    assert links
    assert all((bench_results.FOLDER / link).exists() for link in links)


def test_no_figure_is_written_by_hand():
    """But for a version and the size of the title; settings are named, not repeated."""
    text = re.sub(r"`.*?`|\]\(.*?\)|^\d+\. |1\.21", "", scaling_advice.section([]), flags=re.MULTILINE)
    assert re.findall(r"\d+", text) == []
