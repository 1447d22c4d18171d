"""Every alert has a severity, a team, texts, a runbook and a dashboard, and is tested firing and not firing."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import asdict

import pytest
import yaml

from airflow_ha.monitoring import thresholds
from airflow_ha.monitoring.findings import ALERT_NAMES
from ops.dashboards.all_boards import DASHBOARDS
from ops.project import ROOT
from tests.unit.alerting.alert_rules import ALERTS, rule_groups

ALERTING = ROOT / "alerting"
ALWAYS_FIRING = "Watchdog"
WITHOUT_MESSAGE = {ALWAYS_FIRING, "Aftermath"}
PAGE_SECONDS = 45
"""From fault to firing, for a page whose window is below a minute."""
SECTIONS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]
RUNBOOK_LINES = 60


def seconds(duration):
    return sum(int(n) * {"h": 3600, "m": 60, "s": 1}[unit] for n, unit in re.findall(r"(\d+)([hms])", str(duration)))


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
def test_every_alert_has_a_severity_and_a_team(rule):
    assert {"severity", "team"} <= set(rule["labels"]) <= {"severity", "team", "depends_on"}
    assert (rule["labels"]["severity"] == "none") == (rule["alert"] in WITHOUT_MESSAGE)
    assert rule["labels"]["severity"] in {"page", "ticket", "info", "none"}
    assert rule["labels"]["team"] in {"platform", "data"}


@pytest.mark.parametrize("rule", ALERTS, ids=by_name)
def test_every_summary_is_one_line_with_the_value(rule):
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url", "dashboard_url"}
    summary, description = rule["annotations"]["summary"], rule["annotations"]["description"]
    assert "$value" in summary
    assert "\n" not in summary.strip()
    assert len(description.strip()) > len("its impact, in one sentence")


@pytest.mark.parametrize("rule", ALERTS, ids=by_name)
def test_every_alert_links_its_runbook_and_a_dashboard(rule):
    assert rule["annotations"]["runbook_url"] == f"alerting/runbooks/{rule['alert']}.md"
    assert (ROOT / rule["annotations"]["runbook_url"]).is_file()
    assert rule["annotations"]["dashboard_url"] in {f"/d/{dashboard.uid}" for dashboard in DASHBOARDS.values()}


def test_every_alert_and_finding_has_a_runbook():
    assert set(RUNBOOKS) == {*NAMES, *ALERT_NAMES}


def test_every_runbook_has_the_four_sections_on_one_page():
    texts = {name: path.read_text().splitlines() for name, path in RUNBOOKS.items()}
    sections = {name: [line[3:] for line in lines if line.startswith("## ")] for name, lines in texts.items()}
    assert {name: titles for name, titles in sections.items() if titles != SECTIONS} == {}
    assert [name for name, lines in texts.items() if lines[0] != f"# {name}"] == []
    assert [name for name, lines in texts.items() if len(lines) >= RUNBOOK_LINES] == []


def test_variables_named_in_runbooks_have_the_given_default():
    text = "\n".join(path.read_text() for path in RUNBOOKS.values())
    named = set(re.findall(r"`(monitoring_\w+)`", text)) - {"monitoring_dag"}
    given = set(re.findall(r"`(monitoring_\w+)`\s\(([\d.]+)\)", text))
    defaults = {f"{thresholds.PREFIX}{name}": value for name, value in asdict(thresholds.Thresholds()).items()}
    assert named <= set(defaults)
    assert given
    assert {name: float(value) for name, value in given} == {name: defaults[name] for name, _ in given}


@pytest.mark.parametrize("path", RUNBOOKS.values(), ids=lambda path: path.stem)
def test_panels_named_in_a_runbook_exist(path):
    text = " ".join(path.read_text().split())
    boards = {board.title: [panel.title for row in board.rows for panel in row] for board in DASHBOARDS.values()}
    named = re.findall(rf"({'|'.join(boards)}) dashboard[,:] ((?:\*[^*]+\*(?:,| and)? ?)+)", text)
    missing = [
        panel for board, panels in named for panel in re.findall(r"\*([^*]+)\*", panels) if panel not in boards[board]
    ]
    assert missing == []


@pytest.mark.parametrize("name", NAMES)
def test_every_alert_is_tested_firing_and_not_firing(name):
    checks = [check for _, check in CASES if check["alertname"] == name]
    assert any(check["exp_alerts"] for check in checks), "never expected to fire"
    if name != ALWAYS_FIRING:
        assert any(not check["exp_alerts"] for check in checks), "always expected to fire"


@pytest.mark.parametrize("name", sorted(set(NAMES) - {ALWAYS_FIRING}))
def test_every_alert_is_tested_just_before_it_fires(name):
    """In the same case, at most 40 s or two steps of the input earlier, it is not firing."""
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


def test_every_tested_alert_exists():
    assert sorted({check["alertname"] for _, check in CASES} - set(NAMES)) == []


def test_runbooks_named_by_panels_exist():
    named = {panel.runbook for board in DASHBOARDS.values() for row in board.rows for panel in row if panel.runbook}
    assert sorted(named - set(RUNBOOKS)) == []


def test_no_page_waits_longer_than_35_seconds():
    late = {
        rule["alert"]: rule["for"]
        for rule in ALERTS
        if rule["labels"]["severity"] == "page" and seconds(rule.get("for", "0s")) > PAGE_SECONDS - 10
    }
    assert late == {}


def test_pages_are_scraped_and_evaluated_every_5_seconds():
    jobs = yaml.safe_load((ROOT / "compose/prometheus/prometheus.yaml").read_text())["scrape_configs"]
    quick = {job["job_name"] for job in jobs if job.get("scrape_interval") == "5s"}
    assert {"statsd-exporter", "gateway", "postgres", "redis"} <= quick
    intervals = {
        rule["alert"]: group.get("interval")
        for group in rule_groups()
        for rule in group["rules"]
        if rule.get("labels", {}).get("severity") == "page"
    }
    # These have windows of minutes or days.
    assert {name for name, interval in intervals.items() if interval != "5s"} == {
        "AirflowCanaryStale",
        "AirflowErrorBudgetBurn",
        "CertificateExpiring",
    }
