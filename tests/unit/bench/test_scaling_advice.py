"""The advice quotes measured figures, and omits sentences without them."""

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


def test_advice_quotes_measured_figures():
    assert ADVISED.text([WORKERS]) == "Do this. One has 2, four 2.50 times that."


@pytest.mark.parametrize("kept", [[], [Result("workers", {"1 worker": [{"s": 2.0}]}, "1 worker")]])
def test_advice_omits_a_sentence_without_its_figures(kept):
    assert ADVISED.text(kept) == "Do this."


def test_every_advice_has_a_quote_for_each_placeholder():
    assert [advice.measured.count("{}") for advice in ADVICE] == [len(advice.quotes) for advice in ADVICE]


def test_every_quote_names_an_existing_bench_and_its_base():
    bases = {comparison.name: comparison.base for comparison in COMPARISONS}
    for quote in (quote for advice in ADVICE for quote in advice.quotes):
        assert quote.bench in bench_results.SUMMARIES
        assert quote.base in ("", bases.get(quote.bench))


def test_linked_files_exist():
    links = re.findall(r"\]\((.*?)\)", scaling_advice.section([]))
    assert links
    assert all((bench_results.FOLDER / link).exists() for link in links)


def test_no_figure_is_written_by_hand():
    """Except PgBouncer's version and those in code and links."""
    text = re.sub(r"`.*?`|\]\(.*?\)|^\d+\. |1\.21", "", scaling_advice.section([]), flags=re.MULTILINE)
    assert re.findall(r"\d+", text) == []
