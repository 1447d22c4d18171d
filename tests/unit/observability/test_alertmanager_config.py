"""Inhibition between alerts, and the receivers that each secret enables."""

from __future__ import annotations

import ast
import re
from functools import cache
from typing import TYPE_CHECKING

import pytest
import yaml

from ops.errors import StackError
from ops.notification_secrets import DEAD_MANS_SWITCH, OPTIONAL_SECRETS, PAGERDUTY, SLACK, SLACK_DATA, SMTP
from ops.observability import alertmanager_config
from ops.project import ROOT
from tests.unit.alerting.alert_rules import depends_on

if TYPE_CHECKING:
    from collections.abc import Mapping

CHECKS = ROOT / "src/airflow_ha/monitoring/checks.py"
FOLDER = ROOT / alertmanager_config.FOLDER
EMAIL = {"ALERT_EMAIL_SMARTHOST": "mail.test:587", "ALERT_EMAIL_FROM": "a@b.test", "ALERT_EMAIL_TO": "c@d.test"}


@cache
def config(*secrets: str, **settings: str) -> dict:
    return yaml.safe_load(alertmanager_config.render(FOLDER, {**EMAIL, **settings}, secrets))


def receivers(*secrets: str, **settings: str) -> dict[str, dict]:
    return {receiver["name"]: receiver for receiver in config(*secrets, **settings)["receivers"]}


# ---- inhibition

MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"(.*)"')


def matches(matchers: list[str], labels: Mapping[str, str]) -> bool:
    """Match as Alertmanager does: a missing label is empty, and regular expressions are anchored."""
    for matcher in matchers:
        parsed = MATCHER.fullmatch(matcher)
        assert parsed, matcher
        name, operator, pattern = parsed.groups()
        value = labels.get(name, "")
        is_equal = re.fullmatch(pattern, value) is not None if "~" in operator else value == pattern
        if is_equal == operator.startswith("!"):
            return False
    return True


def inhibits(source: Mapping[str, str], target: Mapping[str, str]) -> bool:
    return any(
        matches(rule["source_matchers"], source)
        and matches(rule["target_matchers"], target)
        and all(source.get(name, "") == target.get(name, "") for name in rule.get("equal", []))
        for rule in config()["inhibit_rules"]
    )


def labels(text: str) -> dict[str, str]:
    """Return the labels of `AirflowComponentGone component=worker`."""
    name, *pairs = text.split()
    return {"alertname": name, "depends_on": depends_on(name), **dict(pair.split("=", 1) for pair in pairs)}


NO_TASKS = ["AirflowCanaryStale", "AirflowCanaryLate", "AirflowQueueNotConsumed", "AirflowQueueGrowing"]
NO_TASKS += ["AirflowMonitoringStale", "AirflowDagOverdue dag_id=d", "AirflowErrorBudgetBurn severity=page"]
INHIBITED = {
    "PostgresDown": [
        *NO_TASKS,
        "AirflowComponentGone component=scheduler",
        "AirflowComponentDown component=api-server",
        "AirflowSchedulerSlow",
        "ApiErrors",
        "PostgresConnections",
        "TargetDown job=postgres",
    ],
    "RedisDown": [
        *NO_TASKS,
        "AirflowComponentGone component=worker",
        "AirflowComponentGone component=worker-gpu",
        "AirflowQueueWithoutWorker queue=gpu",
        "AirflowSchedulerSlotsLeak",
        "AirflowWorkersFull",
        "RedisMemory",
        "TargetDown job=redis",
    ],
    "GatewayDown": [
        *NO_TASKS,
        "AirflowComponentGone component=api-server",
        "AirflowComponentDown component=execution-api",
        "ApiErrors",
        "TargetDown job=gateway",
    ],
    "AirflowComponentGone component=scheduler": [
        *NO_TASKS,
        "AirflowSchedulerSlow",
        "AirflowComponentDown component=scheduler",
    ],
    "AirflowComponentGone component=worker": [*NO_TASKS, "AirflowExecutorFull", "AirflowTasksLost"],
    "AirflowComponentGone component=execution-api": [*NO_TASKS, "AirflowTasksFailing", "ApiErrors"],
    "AirflowComponentGone component=dag-processor": ["AirflowDagProcessingSlow"],
    "AirflowComponentGone component=api-server": ["ApiErrors", "AirflowMonitoringStale"],
    "AirflowQueueNotConsumed": ["AirflowQueueGrowing", "AirflowQueuedTooLong", "AirflowCanaryStale"],
    "AirflowSchedulerSlotsLeak": ["AirflowExecutorFull"],
    "AirflowCanaryStale": ["AirflowCanaryLate", "AirflowMonitoringStale"],
    "AirflowErrorBudgetBurn severity=page": ["AirflowErrorBudgetBurn severity=ticket"],
    "AirflowDagRunsFailing dag_id=d source=monitoring_dag": [
        "AirflowDagRunsFailing dag_id=d",
        "AirflowTasksFailing dag_id=d",
        "AirflowFailureRateHigh source=monitoring_dag",
        "AirflowErrorBudgetBurn severity=ticket",
    ],
    "AirflowPoolStarving pool_name=p source=monitoring_dag": ["AirflowPoolStarving pool_name=p"],
    "TargetDown job=statsd-exporter": ["AirflowCanaryStale", "AirflowComponentGone component=worker"],
    "AlertmanagerDown": ["AlertmanagerPeers", "TargetDown job=alertmanager"],
    "NotificationsFail": ["Watchdog"],
}
NOT_INHIBITED = {
    "PostgresDown": ["RedisDown", "GatewayDown", "DiskFilling", "TargetDown job=redis", "Watchdog", "RulesFail"],
    "RedisDown": ["PostgresDown", "ApiErrors", "AirflowComponentGone component=api-server"],
    "GatewayDown": ["PostgresDown", "RedisDown", "AirflowComponentGone component=scheduler"],
    "AirflowComponentGone component=worker": [
        "AirflowComponentGone component=scheduler",
        "AirflowComponentDown component=scheduler",
        "PostgresDown",
    ],
    "AirflowComponentGone component=triggerer": ["AirflowCanaryStale", "AirflowQueueNotConsumed"],
    "AirflowComponentDown component=worker": [*NO_TASKS, "AirflowComponentGone component=worker"],
    "AirflowDagRunsFailing dag_id=d source=monitoring_dag": [
        "AirflowDagRunsFailing dag_id=e",
        "AirflowDagRunsFailing dag_id=e source=monitoring_dag",
        "AirflowTasksFailing dag_id=e",
        "AirflowErrorBudgetBurn severity=page",
        "AirflowImportErrors",
    ],
    "AirflowErrorBudgetBurn severity=ticket": ["AirflowErrorBudgetBurn severity=page"],
    "AirflowPoolStarving pool_name=p source=monitoring_dag": ["AirflowPoolStarving pool_name=q"],
    "AirflowImportErrors file=x.py source=monitoring_dag": [
        "AirflowImportErrors",
        "AirflowImportErrors file=y.py",
        "AirflowImportErrors file=y.py source=monitoring_dag",
    ],
    "AirflowMonitoringMisconfigured variable=v source=monitoring_dag": ["AirflowMonitoringMisconfigured"],
    "AirflowComponentDown component=worker source=monitoring_dag": ["AirflowComponentDown component=scheduler"],
    "AirflowDagOverdue dag_id=d source=monitoring_dag": ["AirflowDagOverdue dag_id=e"],
    "TargetDown job=redis": NO_TASKS,
    "Watchdog": ["NotificationsFail", "PostgresDown"],
}


def finding_labels() -> set[str]:
    """Return the label names of all findings, from the source of the checks."""
    calls = [node for node in ast.walk(ast.parse(CHECKS.read_text())) if isinstance(node, ast.Call)]
    arguments = [keyword.value for call in calls for keyword in call.keywords if keyword.arg == "labels"]
    literals = [[node for node in ast.walk(argument) if isinstance(node, ast.Dict)] for argument in arguments]
    assert all(literals)
    return {key.value for dicts in literals for literal in dicts for key in literal.keys}


def test_a_finding_inhibits_only_the_rule_with_its_labels():
    (equal,) = [
        set(rule["equal"])
        for rule in config()["inhibit_rules"]
        if (rule["source_matchers"], rule["target_matchers"]) == (['source="monitoring_dag"'], ['source=""'])
    ]
    assert finding_labels() - equal == set()


AFTERMATH = ["PostgresDown", "RedisDown", "GatewayDown", "AirflowQueueNotConsumed", "AirflowCanaryStale"]


def pairs(table: Mapping[str, list[str]]) -> list[tuple[str, str]]:
    return [(source, target) for source, targets in table.items() for target in targets]


@pytest.mark.parametrize(("source", "target"), pairs(INHIBITED))
def test_a_cause_inhibits_its_effects(source, target):
    assert inhibits(labels(source), labels(target))


@pytest.mark.parametrize(("source", "target"), pairs(NOT_INHIBITED))
def test_an_alert_with_another_cause_is_sent(source, target):
    assert not inhibits(labels(source), labels(target))


@pytest.mark.parametrize("source", [*INHIBITED, *NOT_INHIBITED])
def test_no_alert_inhibits_itself(source):
    assert not inhibits(labels(source), labels(source))


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (source, target)
        for source, target in pairs(INHIBITED)
        if labels(source)["alertname"] in [*AFTERMATH, "AirflowComponentGone"] and not target.startswith("TargetDown")
    ],
)
def test_an_aftermath_inhibits_the_effects_of_its_cause(source, target):
    cause = labels(source)
    assert inhibits({**cause, "alertname": "Aftermath", "cause": cause["alertname"]}, labels(target))


def test_the_aftermath_rule_has_every_inhibiting_cause():
    rule = (ROOT / "alerting/rules/aftermath.yaml").read_text()
    causes = {
        match[1]
        for entry in config()["inhibit_rules"]
        for matcher in entry["source_matchers"]
        if (match := re.fullmatch(r'cause="(\w+)"', matcher))
    }
    assert causes
    assert {cause for cause in causes if not re.search(rf"\b{cause}\b", rule)} == set()


# ---- receivers


def test_a_page_is_sent_after_5_s_and_resolved_within_30_s():
    (page,) = [route for route in config()["route"]["routes"] if route["matchers"] == ['severity="page"']]
    assert (page["group_wait"], page["group_interval"]) == ("5s", "30s")


def test_the_dead_mans_switch_gets_every_interval():
    (switch,) = [route for route in config()["route"]["routes"] if route["receiver"] == "dead-mans-switch"]
    assert (switch["group_interval"], switch["repeat_interval"]) == ("1m", "50s")


def test_the_configuration_names_secret_files_only():
    text = alertmanager_config.render(FOLDER, EMAIL, list(OPTIONAL_SECRETS))
    assert "slack-stub" not in text
    assert set(re.findall(r"/run/secrets/\w+", text)) == {f"/run/secrets/{name}" for name in OPTIONAL_SECRETS}


def test_without_a_data_webhook_every_way_has_one_slack():
    assert len(receivers(SLACK)["every-way"]["slack_configs"]) == 1
    assert len(receivers(SLACK, SLACK_DATA)["every-way"]["slack_configs"]) == 2


def test_with_real_slack_the_watchdog_needs_its_own_url():
    assert "webhook_configs" in receivers()["dead-mans-switch"]
    assert receivers(SLACK)["dead-mans-switch"] == {"name": "dead-mans-switch"}
    assert "webhook_configs" in receivers(SLACK, DEAD_MANS_SWITCH)["dead-mans-switch"]


def test_pagerduty_gets_pages_only_with_its_key():
    with_key = {name for name, receiver in receivers(PAGERDUTY).items() if "pagerduty_configs" in receiver}
    assert with_key == {"platform-page", "data-page", "every-way"}
    assert not any("pagerduty_configs" in receiver for receiver in receivers().values())


def test_email_logs_in_as_the_sender_or_the_named_user():
    (mail,) = receivers(SMTP)["platform"]["email_configs"]
    assert (mail["smarthost"], mail["from"], mail["to"]) == ("mail.test:587", "a@b.test", "c@d.test")
    assert mail["auth_username"] == "a@b.test"
    (mail,) = receivers(SMTP, ALERT_EMAIL_USER="robot")["data-page"]["email_configs"]
    assert mail["auth_username"] == "robot"
    assert not any("email_configs" in receiver for receiver in receivers().values())


@pytest.mark.parametrize(
    ("settings", "secrets", "error"),
    [
        ({}, {SMTP}, "ALERT_EMAIL_SMARTHOST, ALERT_EMAIL_FROM, ALERT_EMAIL_TO are missing"),
        (EMAIL, set(), "the secret smtp_password is missing"),
        (EMAIL | {"ALERT_EMAIL_TO": ""}, {SMTP}, "ALERT_EMAIL_TO is missing"),
    ],
)
def test_incomplete_email_settings_are_refused(settings, secrets, error):
    with pytest.raises(StackError, match=re.escape(error)):
        alertmanager_config.check_email(settings, secrets, ".env")


def test_no_or_complete_email_settings_are_accepted():
    alertmanager_config.check_email({}, set(), ".env")
    alertmanager_config.check_email(EMAIL, {SMTP}, ".env")
