"""Alerts are silenced for a command, and for no longer than it needs."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

import pytest
import yaml

from ops import silenced_alerts as module
from ops import waiting
from ops.clients import alertmanager
from ops.errors import StackError
from ops.project import ROOT
from ops.silenced_alerts import silenced_alerts

HOUR = timedelta(hours=1)


def test_silences_expire_once_alerts_have_settled(monkeypatch):
    created: list[dict] = []
    expired: list[str] = []

    class Alertmanager:
        def silence(self, matchers, start, end, by, why):
            created.append(matchers)
            return f"silence-{len(created)}"

        def end_silence(self, silence):
            expired.append(silence)

    monkeypatch.setattr(alertmanager, "both", lambda settings: [])
    monkeypatch.setattr(alertmanager, "any_that_answers", lambda candidates: Alertmanager())
    settled = iter([False, True])
    monkeypatch.setattr(module, "is_settled", lambda settings: next(settled) and not expired.append("settled"))
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.0)
    settings = {"COMPOSE_PROFILES": "data,observability"}
    with pytest.raises(ZeroDivisionError), silenced_alerts(settings, HOUR, "bench", print):  # noqa: PT012
        assert created == [{"severity": "page"}, {"severity": "ticket"}]
        raise ZeroDivisionError
    assert expired == ["settled", "silence-1", "silence-2"]


def test_silences_expire_if_an_alert_keeps_firing(monkeypatch):
    expired: list[str] = []
    server = SimpleNamespace(silence=lambda *_: "an-id", end_silence=expired.append)
    monkeypatch.setattr(alertmanager, "both", lambda settings: [])
    monkeypatch.setattr(alertmanager, "any_that_answers", lambda candidates: server)
    monkeypatch.setattr(module, "is_settled", lambda settings: False)
    monkeypatch.setattr(module, "SETTLE_SECONDS", -1.0)
    lines: list[str] = []
    with silenced_alerts({"COMPOSE_PROFILES": "observability"}, HOUR, "bench", lines.append):
        pass
    assert expired == ["an-id", "an-id"]
    assert "no alert fires any more" in lines[-1]


def test_all_notifying_severities_are_silenced():
    rules = [
        rule
        for path in (ROOT / "alerting/rules").glob("*.yaml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    assert {rule["labels"]["severity"] for rule in rules} - {"none"} == set(module.SEVERITIES)


def test_no_alertmanager_needs_no_silence():
    with silenced_alerts({"COMPOSE_PROFILES": "data"}, HOUR, "bench", print):
        pass


def test_silence_that_cannot_be_expired_is_reported(monkeypatch):
    server = SimpleNamespace(silence=lambda *_: "an-id")

    def no_answer(_):
        raise StackError("cannot reach Alertmanager: refused")

    monkeypatch.setattr(alertmanager, "both", lambda settings: [])
    monkeypatch.setattr(alertmanager, "any_that_answers", lambda candidates: server)
    monkeypatch.setattr(module, "is_settled", lambda settings: True)
    lines: list[str] = []
    with silenced_alerts({"COMPOSE_PROFILES": "observability"}, HOUR, "upgrade", lines.append):
        monkeypatch.setattr(alertmanager, "any_that_answers", no_answer)
    assert lines[-1] == "the silence an-id stays until its end: cannot reach Alertmanager: refused"
