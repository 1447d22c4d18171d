"""Results are kept, and the page, the picture and the README part are generated from them."""

from __future__ import annotations

import json

import pytest

from ops.bench import bench_results, telemetry_cost
from ops.bench.benches import FAILED, GOALS, GROWTH, LATENCY, UI_LOAD, Goal, delay_figure, rate_figure
from ops.bench.comparisons import SUMMARIES
from ops.bench.statistics import Result
from ops.bench.telemetry_cost import RATE

WHERE = {"kernel": "Linux 6.1", "machine": "2 cores", "Airflow": "3.3.2"}
LATENCIES = Result("latency", {"here": [{LATENCY: 0.5}] * 5, "stock": [{LATENCY: 2.0}] * 5}, "stock")
FAN_OUT = Result(
    "fanout",
    {name: [{rate_figure(100): rate, rate_figure(1_000): rate}] for name, rate in (("here", 8), ("stock", 4))},
    "stock",
)


def merged(*now: Result, old=None, where=WHERE):
    return bench_results.merge(old or {}, now, where, "2026-11-25")


def test_new_result_replaces_only_the_old_one_of_its_bench():
    newer = Result("latency", {"here": [{LATENCY: 0.4}]}, None)
    data = merged(newer, old=merged(FAN_OUT, LATENCIES))
    assert list(data["benches"]) == ["latency", "fanout"]
    assert bench_results.parse_results(data) == [newer, FAN_OUT]


def test_other_machine_or_version_drops_kept_results():
    data = merged(LATENCIES, old=merged(FAN_OUT), where=WHERE | {"Airflow": "3.3.3"})
    assert list(data["benches"]) == ["latency"]


def test_other_kernel_build_keeps_results_and_is_noted():
    data = merged(LATENCIES, old=merged(FAN_OUT), where=WHERE | {"kernel": "Linux 6.2"})
    assert list(data["benches"]) == ["latency", "fanout"]
    assert [line for line in bench_results.render_page(data).splitlines() if "2026-11-25" in line] == [
        f"{SUMMARIES['latency']} 5 rounds, 2026-11-25, Linux 6.2.",
        f"{SUMMARIES['fanout']} 1 round, 2026-11-25, Linux 6.1.",
    ]


def test_results_survive_a_json_round_trip():
    data = merged(LATENCIES, FAN_OUT)
    assert bench_results.parse_results(json.loads(json.dumps(data))) == [LATENCIES, FAN_OUT]


def test_page_has_machine_versions_goals_and_tables():
    page = bench_results.render_page(merged(LATENCIES))
    assert "- machine: 2 cores\n- Airflow: 3.3.2" in page
    assert "| a run of two tasks, from request to success, s | 0.500 | 2 | 0.250 | ≤ 0.35× | yes |" in page  # noqa: RUF001
    assert "5 rounds, 2026-11-25, Linux 6.1." in page
    assert "results.svg" not in page


def test_missed_goal_is_marked_no():
    slow = Result("latency", {"here": [{LATENCY: 1.0}], "stock": [{LATENCY: 2.0}]}, "stock")
    assert bench_results.goal_rows([slow])[0][-1] == "no"


def test_only_a_ratio_goal_needs_a_base():
    alone = Result("queue", {"here": [{GROWTH: 1.2}]}, None)
    assert [row[-2:] for row in bench_results.goal_rows([alone])] == [["≤ 1.5", "yes"]]
    assert bench_results.goal_rows([Result("latency", {"here": [{LATENCY: 1.0}]}, None)]) == []


def test_one_failed_request_in_one_round_misses_the_goal():
    rounds = [{FAILED: 0.0}, {FAILED: 0.0}, {FAILED: 1.0}]
    assert bench_results.goal_rows([Result(UI_LOAD, {"here": rounds}, None)])[0][-1] == "no"


def test_telemetry_goal_compares_on_with_off():
    samples = {variant: [{telemetry_cost.RUN: seconds}] for variant, seconds in (("on", 10.4), ("off", 10.0))}
    (row,) = bench_results.goal_rows([Result("telemetry", samples, "off")])
    assert row == ["200 no-op tasks with telemetry on, against off, s", "10.4", "10", "1.04", "≤ 1.05×", "yes"]  # noqa: RUF001


@pytest.mark.parametrize(("value", "is_met"), [(1.6, True), (1.59, False)])
def test_minimum_goal_is_met_from_its_limit_on(value, is_met):
    assert Goal("fanout", "", "x", "ratio", 1.6, is_minimum=True).is_met(value) is is_met


def test_every_goal_names_an_existing_bench():
    assert {goal.bench for goal in GOALS} <= set(bench_results.SUMMARIES)


def test_sizes_get_ratios_and_are_quoted_in_the_advice():
    sizes = {"1 worker": [{RATE: 4.0}], "2 workers": [{RATE: 6.0}], "4 workers": [{RATE: 8.0}]}
    page = bench_results.render_page(merged(Result("workers", sizes, "1 worker"), LATENCIES))
    assert "|  | 1 worker | 2 workers | 4 workers | 2 workers ÷ 1 worker | 4 workers ÷ 1 worker |" in page
    assert f"| {RATE} | 4 | 6 | 8 | 1.50 | 2 |" in page
    assert page.index("## latency") < page.index("## workers") < page.index("## At ten times the size")
    assert "4 workers did 2 times the tasks a second of one" in page


def test_equal_results_give_an_equal_picture(tmp_path):
    queue = Result(
        "queue", {"here": [{delay_figure(100): 0.2, delay_figure(1_000): 0.3}, {delay_figure(100): 0.4}]}, None
    )
    for name in ("one.svg", "two.svg"):
        bench_results.draw([FAN_OUT, queue], tmp_path / name)
    first = (tmp_path / "one.svg").read_text()
    assert first == (tmp_path / "two.svg").read_text()
    assert "<svg" in first
    assert bench_results.PICTURE_LINE in bench_results.render_page(merged(FAN_OUT))


def test_picture_has_each_size_with_its_spread():
    queue = Result(
        "queue", {"here": [{delay_figure(100): 0.2}, {delay_figure(100): 0.4, delay_figure(1_000): 0.3}]}, None
    )
    ((title, variants),) = bench_results.plotted_points([queue, LATENCIES]).items()
    assert title == "queue: seconds, p95"
    assert [(size, round(values.median, 2), values.low, values.high) for size, values in variants["here"]] == [
        (100, 0.3, 0.2, 0.4),
        (1_000, 0.3, 0.3, 0.3),
    ]


def test_page_matches_the_kept_results():
    if bench_results.DATA.exists():
        data = json.loads(bench_results.DATA.read_text(encoding="utf-8"))
        assert bench_results.PAGE.read_text(encoding="utf-8") == bench_results.render_page(data)
    else:
        assert not bench_results.PAGE.exists()


def test_bench_table_is_followed_by_its_notes():
    assert bench_results.NOTES.keys() <= SUMMARIES.keys()
    sample = {"CPU-seconds a task": 0.2}
    page = bench_results.render_page(merged(Result("cost", {"here": [sample]}, None)))
    assert page.index("## cost") < page.index(bench_results.NOTES["cost"]) < page.index("## At ten times")
