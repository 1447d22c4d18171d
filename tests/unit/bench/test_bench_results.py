"""What benches have shown is kept, and page and picture follow from it alone."""

from __future__ import annotations

import json

import pytest

from ops.bench import bench_results, telemetry_cost
from ops.bench.benches import FAILED, GOALS, GROWTH, LATENCY, Goal, delay, tasks_per_second
from ops.bench.comparisons import SENTENCES
from ops.bench.statistics import Result
from ops.bench.telemetry_cost import RATE
from ops.ci import readme

WHERE = {"kernel": "Linux 6.1", "machine": "2 cores", "Airflow": "3.3.2"}
LATENCIES = Result("latency", {"here": [{LATENCY: 0.5}] * 5, "stock": [{LATENCY: 2.0}] * 5}, "stock")
FAN_OUT = Result(
    "fanout",
    {
        name: [{tasks_per_second(100): rate, tasks_per_second(1_000): rate}]
        for name, rate in (("here", 8), ("stock", 4))
    },
    "stock",
)


def kept(*now: Result, old=None, where=WHERE):
    return bench_results.merged(old or {}, now, where, "2026-11-25")


def test_new_results_take_the_place_of_the_old_and_leave_the_others():
    newer = Result("latency", {"here": [{LATENCY: 0.4}]}, None)
    data = kept(newer, old=kept(FAN_OUT, LATENCIES))
    assert list(data["benches"]) == ["latency", "fanout"]
    assert bench_results.read(data) == [newer, FAN_OUT]


def test_results_of_another_machine_or_version_are_dropped():
    data = kept(LATENCIES, old=kept(FAN_OUT), where=WHERE | {"Airflow": "3.3.3"})
    assert list(data["benches"]) == ["latency"]


def test_results_on_another_build_of_the_kernel_stay_and_say_which():
    data = kept(LATENCIES, old=kept(FAN_OUT), where=WHERE | {"kernel": "Linux 6.2"})
    assert list(data["benches"]) == ["latency", "fanout"]
    assert [line for line in bench_results.page(data).splitlines() if "2026-11-25" in line] == [
        f"{SENTENCES['latency']} 5 rounds, 2026-11-25, Linux 6.2.",
        f"{SENTENCES['fanout']} 1 round, 2026-11-25, Linux 6.1.",
    ]


def test_what_is_kept_survives_its_file():
    data = kept(LATENCIES, FAN_OUT)
    assert bench_results.read(json.loads(json.dumps(data))) == [LATENCIES, FAN_OUT]


def test_the_page_has_machine_versions_goals_and_tables():
    page = bench_results.page(kept(LATENCIES))
    assert "- machine: 2 cores\n- Airflow: 3.3.2" in page
    assert "| a run of two tasks, from request to success, s | 0.500 | 2 | 0.250 | ≤ 0.35× | yes |" in page  # noqa: RUF001
    assert "5 rounds, 2026-11-25, Linux 6.1." in page
    assert "results.svg" not in page


def test_a_goal_that_is_missed_says_so():
    slow = Result("latency", {"here": [{LATENCY: 1.0}], "stock": [{LATENCY: 2.0}]}, "stock")
    assert bench_results.goals([slow])[0][-1] == "no"


def test_a_goal_of_its_own_needs_no_stock_and_one_against_it_does():
    alone = Result("queue", {"here": [{GROWTH: 1.2}]}, None)
    assert [row[-2:] for row in bench_results.goals([alone])] == [["≤ 1.5", "yes"]]
    assert bench_results.goals([Result("latency", {"here": [{LATENCY: 1.0}]}, None)]) == []


def test_one_failed_request_in_one_round_is_too_many():
    rounds = [{FAILED: 0.0}, {FAILED: 0.0}, {FAILED: 1.0}]
    assert bench_results.goals([Result("people", {"here": rounds}, None)])[0][-1] == "no"


def test_telemetry_is_held_against_itself_switched_off():
    samples = {way: [{telemetry_cost.RUN: seconds}] for way, seconds in (("on", 10.4), ("off", 10.0))}
    (row,) = bench_results.goals([Result("telemetry", samples, "off")])
    assert row == ["200 no-op tasks with telemetry on, against off, s", "10.4", "10", "1.04", "≤ 1.05×", "yes"]  # noqa: RUF001


@pytest.mark.parametrize(("value", "kept_"), [(1.6, True), (1.59, False)])
def test_a_least_bound_is_kept_from_it_on(value, kept_):
    assert Goal("fanout", "", "x", "ratio", 1.6, least=True).kept(value) is kept_


def test_every_goal_is_of_a_bench_that_exists():
    assert {goal.bench for goal in GOALS} <= set(bench_results.SENTENCES)


def test_sizes_of_the_stack_alone_have_a_table_with_ratios_and_are_quoted():
    sizes = {"1 worker": [{RATE: 4.0}], "2 workers": [{RATE: 6.0}], "4 workers": [{RATE: 8.0}]}
    page = bench_results.page(kept(Result("workers", sizes, "1 worker"), LATENCIES))
    assert "|  | 1 worker | 2 workers | 4 workers | 2 workers ÷ 1 worker | 4 workers ÷ 1 worker |" in page
    assert f"| {RATE} | 4 | 6 | 8 | 1.50 | 2 |" in page
    assert page.index("## latency") < page.index("## workers") < page.index("## At ten times the size")
    assert "4 workers did 2 times the tasks a second of one" in page


def test_the_picture_is_the_same_for_the_same_results(tmp_path):
    queue = Result("queue", {"here": [{delay(100): 0.2, delay(1_000): 0.3}, {delay(100): 0.4}]}, None)
    for name in ("one.svg", "two.svg"):
        bench_results.draw([FAN_OUT, queue], tmp_path / name)
    first = (tmp_path / "one.svg").read_text()
    assert first == (tmp_path / "two.svg").read_text()
    assert "<svg" in first
    assert bench_results.PICTURE_LINE in bench_results.page(kept(FAN_OUT))


def test_what_is_drawn_is_each_size_with_its_spread():
    queue = Result("queue", {"here": [{delay(100): 0.2}, {delay(100): 0.4, delay(1_000): 0.3}]}, None)
    ((title, sides),) = bench_results.lines([queue, LATENCIES]).items()
    assert title == "queue: seconds, p95"
    assert [(size, round(one.median, 2), one.low, one.high) for size, one in sides["here"]] == [
        (100, 0.3, 0.2, 0.4),
        (1_000, 0.3, 0.3, 0.3),
    ]


def test_the_page_and_the_readme_are_made_of_what_is_kept():
    """Once there are results: who edits one and not the other is told."""
    if bench_results.DATA.exists():
        data = json.loads(bench_results.DATA.read_text(encoding="utf-8"))
        assert bench_results.PAGE.read_text(encoding="utf-8") == bench_results.page(data)
        text = readme.README.read_text(encoding="utf-8")
        assert readme.filled(text, bench_results.PART, bench_results.part(data)) == text
    else:
        assert not bench_results.PAGE.exists()


def test_a_benchs_table_is_followed_by_what_is_known_of_it():
    assert bench_results.NOTES.keys() <= SENTENCES.keys()
    sample = {"CPU-seconds a task": 0.2}
    page = bench_results.page(kept(Result("cost", {"here": [sample]}, None)))
    assert page.index("## cost") < page.index(bench_results.NOTES["cost"]) < page.index("## At ten times")
