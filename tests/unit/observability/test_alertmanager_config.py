"""The routes and mutes that we mean, and what of them there is with which secret."""

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


# ---- mutes

MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"(.*)"')


def matches(matchers: list[str], labels: Mapping[str, str]) -> bool:
    """As Alertmanager does: a label that is not there is an empty one; regular expressions are whole."""
    for matcher in matchers:
        found = MATCHER.fullmatch(matcher)
        assert found, matcher
        name, operator, value = found.groups()
        has = labels.get(name, "")
        same = re.fullmatch(value, has) is not None if "~" in operator else has == value
        if same == operator.startswith("!"):
            return False
    return True


def mutes(source: Mapping[str, str], target: Mapping[str, str]) -> bool:
    return any(
        matches(rule["source_matchers"], source)
        and matches(rule["target_matchers"], target)
        and all(source.get(name, "") == target.get(name, "") for name in rule.get("equal", []))
        for rule in config()["inhibit_rules"]
    )


def labels(text: str) -> dict[str, str]:
    """`AirflowComponentGone component=worker` as labels."""
    name, *pairs = text.split()
    return {"alertname": name, **dict(pair.split("=", 1) for pair in pairs)}


NO_TASKS = ["AirflowCanaryStale", "AirflowCanaryLate", "AirflowQueueNotConsumed", "AirflowQueueGrowing"]
NO_TASKS += ["AirflowMonitoringStale", "AirflowDagOverdue dag_id=d", "AirflowErrorBudgetBurn severity=page"]
MUTED = {
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
NOT_MUTED = {
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
    """The names of the labels of all findings, as the checks' code has them."""
    calls = [node for node in ast.walk(ast.parse(CHECKS.read_text())) if isinstance(node, ast.Call)]
    given = [keyword.value for call in calls for keyword in call.keywords if keyword.arg == "labels"]
    literals = [[node for node in ast.walk(each) if isinstance(node, ast.Dict)] for each in given]
    assert all(literals)
    return {key.value for found in literals for each in found for key in each.keys}


def test_a_finding_mutes_only_the_rule_about_the_same():
    (equal,) = [
        set(rule["equal"])
        for rule in config()["inhibit_rules"]
        if (rule["source_matchers"], rule["target_matchers"]) == (['source="monitoring_dag"'], ['source=""'])
    ]
    assert finding_labels() - equal == set()


AFTERMATH = ["PostgresDown", "RedisDown", "GatewayDown", "AirflowQueueNotConsumed", "AirflowCanaryStale"]


def pairs(table: Mapping[str, list[str]]) -> list[tuple[str, str]]:
    return [(source, target) for source, targets in table.items() for target in targets]


@pytest.mark.parametrize(("source", "target"), pairs(MUTED))
def test_an_effect_is_not_told_beside_its_cause(source, target):
    assert mutes(labels(source), labels(target))


@pytest.mark.parametrize(("source", "target"), pairs(NOT_MUTED))
def test_what_has_a_cause_of_its_own_is_told(source, target):
    assert not mutes(labels(source), labels(target))


@pytest.mark.parametrize("source", [*MUTED, *NOT_MUTED])
def test_no_alert_mutes_itself(source):
    assert not mutes(labels(source), labels(source))


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (source, target)
        for source, target in pairs(MUTED)
        if labels(source)["alertname"] in [*AFTERMATH, "AirflowComponentGone"] and not target.startswith("TargetDown")
    ],
)
def test_an_effect_is_not_told_either_while_it_gets_well(source, target):
    cause = labels(source)
    assert mutes({**cause, "alertname": "Aftermath", "cause": cause["alertname"]}, labels(target))


def test_every_cause_with_an_aftermath_is_one_that_the_rule_watches():
    rule = (ROOT / "alerting/rules/aftermath.yaml").read_text()
    causes = {
        found[1]
        for entry in config()["inhibit_rules"]
        for matcher in entry["source_matchers"]
        if (found := re.fullmatch(r'cause="(\w+)"', matcher))
    }
    assert causes
    assert {cause for cause in causes if not re.search(rf"\b{cause}\b", rule)} == set()


# ---- ways out


def test_a_page_is_told_within_seconds_and_its_end_within_half_a_minute():
    (page,) = [route for route in config()["route"]["routes"] if route["matchers"] == ['severity="page"']]
    assert (page["group_wait"], page["group_interval"]) == ("5s", "30s")


def test_the_dead_mans_switch_is_pressed_in_every_interval():
    (switch,) = [route for route in config()["route"]["routes"] if route["receiver"] == "dead-mans-switch"]
    assert (switch["group_interval"], switch["repeat_interval"]) == ("1m", "50s")


def test_no_secret_is_in_the_configuration_only_the_names_of_files():
    text = alertmanager_config.render(FOLDER, EMAIL, list(OPTIONAL_SECRETS))
    assert "slack-stub" not in text
    assert set(re.findall(r"/run/secrets/\w+", text)) == {f"/run/secrets/{name}" for name in OPTIONAL_SECRETS}


def test_without_a_data_webhook_a_failed_notification_is_not_told_twice_by_the_same_one():
    assert len(receivers(SLACK)["every-way"]["slack_configs"]) == 1
    assert len(receivers(SLACK, SLACK_DATA)["every-way"]["slack_configs"]) == 2


def test_with_a_real_slack_and_no_switch_of_its_own_nobody_is_told_of_the_watchdog():
    assert "webhook_configs" in receivers()["dead-mans-switch"]
    assert receivers(SLACK)["dead-mans-switch"] == {"name": "dead-mans-switch"}
    assert "webhook_configs" in receivers(SLACK, DEAD_MANS_SWITCH)["dead-mans-switch"]


def test_pagerduty_is_paged_beside_slack_only_with_its_key():
    with_key = {name for name, receiver in receivers(PAGERDUTY).items() if "pagerduty_configs" in receiver}
    assert with_key == {"platform-page", "data-page", "every-way"}
    assert not any("pagerduty_configs" in receiver for receiver in receivers().values())


def test_email_has_the_operators_addresses_and_the_sender_logs_in_unless_another_is_named():
    (mail,) = receivers(SMTP)["platform"]["email_configs"]
    assert (mail["smarthost"], mail["from"], mail["to"]) == ("mail.test:587", "a@b.test", "c@d.test")
    assert mail["auth_username"] == "a@b.test"
    (mail,) = receivers(SMTP, ALERT_EMAIL_USER="robot")["data-page"]["email_configs"]
    assert mail["auth_username"] == "robot"
    assert not any("email_configs" in receiver for receiver in receivers().values())


@pytest.mark.parametrize(
    ("settings", "secrets", "said"),
    [
        ({}, {SMTP}, "ALERT_EMAIL_SMARTHOST, ALERT_EMAIL_FROM, ALERT_EMAIL_TO is missing"),
        (EMAIL, set(), "the secret smtp_password is missing"),
        (EMAIL | {"ALERT_EMAIL_TO": ""}, {SMTP}, "ALERT_EMAIL_TO is missing"),
        (EMAIL | {"ALERT_EMAIL_SMARTHOST": "mail.test"}, {SMTP}, "ALERT_EMAIL_SMARTHOST=mail.test is not valid"),
        (EMAIL | {"ALERT_EMAIL_SMARTHOST": "mail.test:0"}, {SMTP}, "ALERT_EMAIL_SMARTHOST=mail.test:0 is not valid"),
        (EMAIL | {"ALERT_EMAIL_TO": "me"}, {SMTP}, "ALERT_EMAIL_TO=me is not valid"),
    ],
)
def test_half_an_email_setup_is_refused_with_what_is_missing(settings, secrets, said):
    with pytest.raises(StackError, match=re.escape(said)):
        alertmanager_config.check_email(settings, secrets, ".env")


def test_no_email_and_a_whole_setup_are_taken():
    alertmanager_config.check_email({}, set(), ".env")
    alertmanager_config.check_email(EMAIL, {SMTP}, ".env")
