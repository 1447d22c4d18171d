"""The log-in at the pages' door: the password's place, and a refused one."""

from __future__ import annotations

import httpx
import pytest

from ops import secrets_store, settings_file
from ops.clients import slack_stub
from ops.clients.alertmanager import Alertmanager
from ops.clients.prometheus import Prometheus
from ops.clients.transport import page_log_in
from ops.errors import StackError


def test_the_password_is_the_secret_of_the_stack(project):
    secrets_store.generate(project)
    expected = ("admin", secrets_store.read(project, "observability_password"))
    assert page_log_in(settings_file.read(project)) == expected


def test_a_missing_password_is_refused_with_its_place(project):
    with pytest.raises(StackError, match="cannot read the password of the pages") as refused:
        page_log_in(settings_file.read(project))
    assert refused.value.where == str(project.secrets / "observability_password")


@pytest.mark.parametrize("status", [401, 429])
def test_a_refused_log_in_is_an_error_with_a_hint(status):
    transport = httpx.MockTransport(lambda _: httpx.Response(status, text="no"))
    for ask in (
        Prometheus("http://p", transport=transport).rules,
        Alertmanager("http://a", transport=transport).alerts,
    ):
        with pytest.raises(StackError, match=f"cannot log in to .*: status {status}") as refused:
            ask()
        assert "observability_password" in str(refused.value.hint)


def test_the_slack_stub_is_asked_with_the_password(project, monkeypatch):
    secrets_store.generate(project)
    sent = {}

    def get(url: str, **options: object) -> httpx.Response:
        sent.update(options)
        return httpx.Response(401, request=httpx.Request("GET", url))

    monkeypatch.setattr(httpx, "get", get)
    with pytest.raises(StackError, match="cannot log in to the Slack stub"):
        slack_stub.messages(settings_file.read(project) | {"COMPOSE_PROFILES": "observability,slack-stub"})
    assert sent["auth"] == ("admin", secrets_store.read(project, "observability_password"))
