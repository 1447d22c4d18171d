"""What drills have shown is kept, and the README says it."""

from __future__ import annotations

from dataclasses import replace

from ops.ci import readme
from ops.drills import results
from ops.drills.catalogue import DRILLS, NOT_NOTICED
from ops.drills.runner import Outcome
from ops.markdown_table import table_rows

MACHINE = "2 cores and 8 GiB"


def outcome(drill: str, recovery: float | None = 2.0, **changes) -> Outcome:
    sentence = next(one.sentence for one in DRILLS if one.name == drill)
    kept = Outcome(
        drill=drill,
        sentence=sentence,
        recovery=recovery,
        whole_again=20.0,
        attempts_lost=0,
        tasks_lost=0,
        tasks_doubled=0,
        overlapping=0,
        alerts={},
        broken=(),
    )
    return replace(kept, **changes)


def measured(known, *outcomes, stock=False):
    return results.merged(known, outcomes, MACHINE, "2026-11-25", stock=stock)


def test_the_readmes_tables_are_those_of_what_was_measured():
    text = readme.README.read_text(encoding="utf-8")
    assert readme.filled(text, results.PART, results.section(results.read())) == text


def test_what_is_kept_is_of_drills_that_there_are():
    assert results.read().keys() <= {drill.name for drill in DRILLS}
    assert set(results.MAIN) <= {drill.name for drill in DRILLS}


def test_a_series_is_read_as_it_was_measured():
    first = outcome("host", broken=("1 tasks lost",), alerts={"RedisDown": 40.0}, whole_again=None)
    assert results.outcomes_of(measured({}, first)["host"]["here"]) == [first]


def test_a_new_series_replaces_that_of_its_drill_and_leaves_the_others():
    known = measured({}, outcome("host", 50.0), outcome("scheduler-crash", 2.0))
    known = measured(known, outcome("host", 313.0), stock=True)
    again = measured(known, outcome("host", 40.0), outcome("host", 60.0))
    assert [one.recovery for one in results.outcomes_of(again["host"]["here"])] == [40.0, 60.0]
    assert again["host"]["stock"] == known["host"]["stock"]
    assert again["scheduler-crash"] == known["scheduler-crash"]


def test_a_drill_that_there_is_no_more_is_forgotten():
    known = {"older": measured({}, outcome("host"))["host"]}
    assert measured(known, outcome("host")).keys() == {"host"}


def test_nothing_is_shown_before_anything_was_measured():
    assert results.section({}) == ""
    assert results.section(measured({}, outcome("host"), stock=True)) == ""


def test_a_row_has_the_median_the_worst_what_was_lost_and_what_a_stock_airflow_lost():
    known = measured({}, *(outcome("scheduler-crash", seconds) for seconds in (1.0, 2.0, 4.0)))
    known = measured(known, outcome("scheduler-crash", 100.0, attempts_lost=11, tasks_lost=1), stock=True)
    (row,) = table_rows(results.section(known))
    assert row == (
        "crash one scheduler",
        "2.0 s (4.0 s)",
        f"{NOT_NOTICED:.0f} s",
        "0",
        "0 / 0",
        "none",
        "100.0 s (100.0 s), 11 attempts lost, 1 tasks lost",
    )


def test_a_task_that_was_done_twice_and_one_that_ran_twice_at_once_both_count():
    known = measured({}, outcome("host", tasks_lost=1), outcome("host", tasks_doubled=1, overlapping=2))
    assert results.row(known["host"])[4] == "1 / 3"


def test_a_promise_that_was_broken_is_not_hidden():
    known = measured({}, outcome("host", 50.0), outcome("host", None, broken=("recovery none",)))
    promised = next(drill.deadline for drill in DRILLS if drill.name == "host")
    assert results.row(known["host"])[1:3] == ("none", f"{promised:.0f} s; kept 1 of 2 times")


def test_the_rest_is_folded_away_and_each_fault_that_was_made_is_explained():
    known = measured({}, outcome("host"), outcome("scheduler-frozen"))
    section = results.section(known)
    first, folded = section.split("<details>")
    assert "the Postgres primary" in first
    assert "1 more faults" in folded
    assert "freeze one scheduler for 30 s" in folded
    assert "*freeze*: every process" in folded
    assert "*slow*" not in section
    assert "each once, last on 2026-11-25" in section
    assert "stock Airflow" not in section, "a column for what nobody has measured"


def test_results_and_readme_are_written_together(tmp_path, monkeypatch):
    page, kept = tmp_path / "README.md", tmp_path / "results.json"
    page.write_text("".join(["# Title\n", *readme.marks(results.PART)]))
    kept.write_text("{}")
    monkeypatch.setattr(readme, "README", page)
    monkeypatch.setattr(results, "RESULTS", kept)
    results.write([outcome("host")], MACHINE, "2026-11-25", stock=False)
    assert results.section(results.read()) in page.read_text()
    assert MACHINE in page.read_text()
    assert results.read().keys() == {"host"}
