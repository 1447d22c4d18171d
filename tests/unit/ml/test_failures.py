"""What a failed task does: no retry where none can help, an e-mail only where one is configured."""

import logging

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_ha.ml import failure_email
from airflow_ha.ml.permanent_failure import no_retry_on


def test_an_error_that_a_retry_cannot_cure_fails_the_task_with_the_same_message():
    with pytest.raises(AirflowFailException, match="999 samples"), no_retry_on(ValueError):
        raise ValueError("999 samples")


def test_any_other_error_is_left_to_the_retries():
    with pytest.raises(ConnectionError), no_retry_on(ValueError):
        raise ConnectionError("the store is away")


@pytest.fixture
def sent(monkeypatch):
    """The e-mails that the notifier was asked to send."""
    mails = []

    class Notifier:
        def __init__(self, **arguments):
            self.arguments = arguments

        def __call__(self, context):
            mails.append((self.arguments, context))

    monkeypatch.setattr("airflow.providers.smtp.notifications.smtp.SmtpNotifier", Notifier)
    return mails


def test_a_failure_is_mailed_to_every_recipient_once_an_smtp_server_is_configured(sent, monkeypatch):
    monkeypatch.setenv("AIRFLOW_VAR_ML_FAILURE_EMAIL", "a@example.org, b@example.org")
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", "smtp://mail.example.org:25")

    failure_email.send_failure_email({"ti": "x"})

    assert sent == [({"to": ["a@example.org", "b@example.org"], "smtp_conn_id": "smtp_default"}, {"ti": "x"})]


def test_nothing_is_mailed_unless_recipients_are_set(sent, monkeypatch):
    monkeypatch.setenv("AIRFLOW_VAR_ML_FAILURE_EMAIL", " ")
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", "smtp://mail.example.org:25")

    failure_email.send_failure_email({})

    assert sent == []


def test_without_an_smtp_server_nothing_is_mailed_and_the_log_says_why(sent, monkeypatch, caplog):
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    def none(conn_id):
        raise AirflowNotFoundException(conn_id)

    monkeypatch.setenv("AIRFLOW_VAR_ML_FAILURE_EMAIL", "a@example.org")
    monkeypatch.setattr(Connection, "get", none)
    with caplog.at_level(logging.WARNING):
        failure_email.send_failure_email({})

    assert sent == []
    assert "No failure e-mail to a@example.org: there is no connection smtp_default" in caplog.text
