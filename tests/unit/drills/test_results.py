"""The recorded results, and the page and the README's table that are generated from them."""

from __future__ import annotations

from ops.ci import readme
from ops.drills import results
from ops.drills.catalogue import DRILLS, NORMAL_JITTER
from ops.markdown_table import table_rows
from tests.unit.drills.outcomes import make_outcome

MACHINE = "2 cores and 8 GiB"


def record(recorded, *outcomes, stock=False):
    return results.merged(recorded, outcomes, MACHINE, "2026-11-25", stock=stock)


def table(recorded):
    """Return the rows of RESULTS.md's table."""
    return table_rows(results.page(recorded).partition("## Results")[2])


def test_page_and_readme_match_the_recorded_results():
    recorded = results.read()
    text = readme.README.read_text(encoding="utf-8")
    assert results.PAGE.read_text(encoding="utf-8") == results.page(recorded)
    assert readme.filled(text, results.PART, results.failover_table(recorded)) == text


def test_recorded_results_are_of_drills_that_exist():
    assert results.read().keys() <= {drill.name for drill in DRILLS}


def test_readme_has_ten_measured_failures():
    assert len(results.FAILURES) == 10
    assert len(table_rows(results.failover_table(results.read()))) == 10


def test_series_is_read_as_it_was_recorded():
    outcome = make_outcome("host", broken=("1 tasks lost",), alerts={"RedisDown": 40.0}, healthy_after=None)
    assert results.outcomes_of(record({}, outcome)["host"]["here"]) == [outcome]


def test_new_series_replaces_only_that_of_its_drill():
    recorded = record({}, make_outcome("host", 50.0), make_outcome("scheduler-crash", 2.0))
    recorded = record(recorded, make_outcome("host", 313.0), stock=True)
    updated = record(recorded, make_outcome("host", 40.0), make_outcome("host", 60.0))
    assert [outcome.recovery for outcome in results.outcomes_of(updated["host"]["here"])] == [40.0, 60.0]
    assert updated["host"]["stock"] == recorded["host"]["stock"]
    assert updated["scheduler-crash"] == recorded["scheduler-crash"]


def test_drill_that_no_longer_exists_is_dropped():
    recorded = {"older": record({}, make_outcome("host"))["host"]}
    assert record(recorded, make_outcome("host")).keys() == {"host"}


def test_without_results_the_tables_are_empty():
    for recorded in ({}, record({}, make_outcome("scheduler-crash"), stock=True)):
        assert results.failover_table(recorded) == ""
        assert table(recorded) == []


def test_row_has_recovery_losses_and_the_cost_on_stock():
    recorded = record({}, *(make_outcome("scheduler-crash", seconds) for seconds in (1.0, 2.0, 4.0)))
    recorded = record(recorded, make_outcome("scheduler-crash", 100.0, attempts_lost=11, tasks_lost=1), stock=True)
    assert table(recorded) == [
        (
            "`scheduler-crash`",
            "crash one scheduler",
            "2.0 s (4.0 s)",
            f"{NORMAL_JITTER:.0f} s",
            "0",
            "0 / 0",
            "none",
            "100.0 s (100.0 s), 11 attempts lost, 1 tasks lost",
        )
    ]


def test_overlapping_and_doubled_tasks_both_count_as_run_twice():
    recorded = record({}, make_outcome("host", tasks_lost=1), make_outcome("host", tasks_doubled=1, overlapping=2))
    assert results.row(recorded["host"])[5] == "1 / 3"


def test_broken_promise_is_shown_in_both_tables():
    broken = make_outcome("host-gone", None, tasks_lost=2, broken=("2 tasks lost",))
    recorded = record({}, make_outcome("host-gone", 50.0), broken)
    deadline = next(drill.deadline for drill in DRILLS if drill.name == "host-gone")
    assert results.row(recorded["host-gone"])[2:4] == ("none", f"{deadline:.0f} s; kept 1 of 2 times")
    assert table_rows(results.failover_table(recorded)) == [(results.FAILURES["host-gone"], "none", "2")]


def test_readme_row_has_the_worst_of_several_recoveries():
    recorded = record({}, *(make_outcome("scheduler-crash", seconds) for seconds in (1.0, 2.0, 4.0)))
    ((_, recovery, lost),) = table_rows(results.failover_table(recorded))
    assert "2.0 s" in recovery
    assert "4.0 s" in recovery
    assert lost == "0"


def test_page_explains_the_measured_kinds_of_fault_only():
    page = results.page(record({}, make_outcome("host"), make_outcome("scheduler-frozen")))
    assert "*freeze*" in page
    assert "*slow*" not in page
    assert MACHINE in page
    assert "2026-11-25" in page


def test_write_updates_results_page_and_readme_together(tmp_path, monkeypatch):
    files = {name: tmp_path / name for name in ("README.md", "RESULTS.md", "results.json")}
    files["README.md"].write_text("".join(["# Title\n", *readme.marks(results.PART)]))
    files["results.json"].write_text("{}")
    monkeypatch.setattr(readme, "README", files["README.md"])
    monkeypatch.setattr(results, "PAGE", files["RESULTS.md"])
    monkeypatch.setattr(results, "RESULTS", files["results.json"])
    results.write([make_outcome("host-gone")], MACHINE, "2026-11-25", stock=False)
    recorded = results.read()
    assert recorded.keys() == {"host-gone"}
    assert files["RESULTS.md"].read_text() == results.page(recorded)
    assert results.failover_table(recorded) in files["README.md"].read_text()
