"""Every alert says how bad it is, whose it is, what is broken and what to do; and is tried both ways."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest
import yaml

from airflow_ha.monitoring.findings import ALERT_NAMES
from ops.dashboards.all_boards import DASHBOARDS
from ops.project import ROOT

ALERTING = ROOT / "alerting"
ALWAYS_FIRING = "Watchdog"
NOT_FOR_PEOPLE = {ALWAYS_FIRING, "Aftermath"}
PAGE_SECONDS = 45
"""From fault to firing, for what a page says within a minute."""


def seconds(duration):
    return sum(int(n) * {"h": 3600, "m": 60, "s": 1}[unit] for n, unit in re.findall(r"(\d+)([hms])", str(duration)))


def groups():
    for path in sorted((ALERTING / "rules").glob("*.yaml")):
        yield from yaml.safe_load(path.read_text())["groups"]


ALERTS = [rule for group in groups() for rule in group["rules"] if "alert" in rule]
NAMES = sorted({rule["alert"] for rule in ALERTS})
RUNBOOKS = {path.stem: path for path in sorted((ALERTING / "runbooks").glob("*.md"))}
CASES = [
    (case, check)
    for path in sorted((ALERTING / "tests").glob("*.yaml"))
    for case in yaml.safe_load(path.read_text())["tests"]
    for check in case.get("alert_rule_test", [])
]


def by_name(rule):
    return f"{rule['alert']} ({rule['labels']['severity']})"


@pytest.mark.parametrize("rule", ALERTS, ids=by_name)
def test_an_alert_says_how_bad_it_is_and_whose(rule):
    assert set(rule["labels"]) == {"severity", "team"}
    assert (rule["labels"]["severity"] == "none") == (rule["alert"] in NOT_FOR_PEOPLE)
    assert rule["labels"]["severity"] in {"page", "ticket", "info", "none"}
    assert rule["labels"]["team"] in {"platform", "data"}


@pytest.mark.parametrize("rule", ALERTS, ids=by_name)
def test_an_alert_says_in_a_line_what_is_broken_with_its_figure(rule):
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url", "dashboard_url"}
    summary, description = rule["annotations"]["summary"], rule["annotations"]["description"]
    assert "$value" in summary
    assert "\n" not in summary.strip()
    assert len(description.strip()) > len("what it means, in a sentence")


@pytest.mark.parametrize("rule", ALERTS, ids=by_name)
def test_an_alert_leads_to_its_runbook_and_to_a_dashboard(rule):
    assert rule["annotations"]["runbook_url"] == f"alerting/runbooks/{rule['alert']}.md"
    assert (ROOT / rule["annotations"]["runbook_url"]).is_file()
    assert rule["annotations"]["dashboard_url"] in {f"/d/{dashboard.uid}" for dashboard in DASHBOARDS.values()}


def test_every_runbook_has_its_alert_and_every_alert_its_runbook():
    """A rule's, or one that only the monitoring DAG finds."""
    assert set(RUNBOOKS) == {*NAMES, *ALERT_NAMES}


@pytest.mark.parametrize("path", RUNBOOKS.values(), ids=lambda path: path.stem)
def test_a_runbook_says_what_it_means_how_to_see_it_what_to_do_and_when_it_is_over(path):
    lines = path.read_text().splitlines()
    assert lines[0] == f"# {path.stem}"
    assert [line.removeprefix("## ") for line in lines if line.startswith("## ")] in (
        ["Meaning", "Impact", "Diagnosis", "Mitigation"],
        ["What it means", "How to see it", "First steps", "When it is over"],
    )
    assert len(lines) < 60, "a page, no more"
    linked = re.findall(r"\]\((\w+)\.md\)", path.read_text())
    assert [name for name in linked if name not in RUNBOOKS] == []


@pytest.mark.parametrize("path", RUNBOOKS.values(), ids=lambda path: path.stem)
def test_a_runbook_names_panels_that_exist(path):
    text = " ".join(path.read_text().split())
    boards = {board.title: [panel.title for row in board.rows for panel in row] for board in DASHBOARDS.values()}
    named = re.findall(rf"({'|'.join(boards)}) dashboard[,:] ((?:\*[^*]+\*(?:,| and)? ?)+)", text)
    missing = [
        panel for board, panels in named for panel in re.findall(r"\*([^*]+)\*", panels) if panel not in boards[board]
    ]
    assert missing == []


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_is_tried_both_ways(name):
    checks = [check for _, check in CASES if check["alertname"] == name]
    assert any(check["exp_alerts"] for check in checks), "never expected to fire"
    if name != ALWAYS_FIRING:
        assert any(not check["exp_alerts"] for check in checks), "never expected to be silent"


@pytest.mark.parametrize("name", sorted(set(NAMES) - {ALWAYS_FIRING}))
def test_an_alert_is_tried_just_before_it_fires(name):
    """In the same case, within half a minute or a step of its input: what was not firing is."""
    moments = defaultdict(lambda: (set(), set()))
    for case, check in CASES:
        if check["alertname"] == name:
            key = (case["name"], seconds(case["interval"]))
            moments[key][bool(check["exp_alerts"])].add(seconds(check["eval_time"]))
    near = [
        (before, after)
        for (_, interval), (silent, firing) in moments.items()
        for before in silent
        for after in firing
        if 0 < after - before <= max(40, 2 * interval)
    ]
    assert near


def test_no_check_is_for_an_alert_that_is_not_there():
    assert sorted({check["alertname"] for _, check in CASES} - set(NAMES)) == []


def test_panels_name_runbooks_that_exist():
    named = {panel.runbook for board in DASHBOARDS.values() for row in board.rows for panel in row if panel.runbook}
    assert sorted(named - set(RUNBOOKS)) == []


def test_pages_that_wait_wait_less_than_a_page_may():
    late = {
        rule["alert"]: rule["for"]
        for rule in ALERTS
        if rule["labels"]["severity"] == "page" and seconds(rule.get("for", "0s")) > PAGE_SECONDS - 10
    }
    assert late == {}


def test_what_pages_stand_on_is_asked_for_and_judged_every_five_seconds():
    jobs = yaml.safe_load((ROOT / "compose/prometheus/prometheus.yaml").read_text())["scrape_configs"]
    quick = {job["job_name"] for job in jobs if job.get("scrape_interval") == "5s"}
    assert {"statsd-exporter", "gateway", "postgres", "redis"} <= quick
    judged = {
        rule["alert"]: group.get("interval")
        for group in groups()
        for rule in group["rules"]
        if rule.get("labels", {}).get("severity") == "page"
    }
    # These two look back over minutes by their nature.
    assert {name for name, interval in judged.items() if interval != "5s"} == {
        "AirflowCanaryStale",
        "AirflowErrorBudgetBurn",
    }
