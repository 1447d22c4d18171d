"""A failed task is not retried if a retry cannot help, and sends an e-mail only if one is configured."""

import logging

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_ha.ml import failure_email
from airflow_ha.ml.permanent_failure import no_retry_on


def test_permanent_error_fails_the_task_and_keeps_its_message():
    with pytest.raises(AirflowFailException, match="999 samples"), no_retry_on(ValueError):
        raise ValueError("999 samples")


def test_other_errors_stay_retryable():
    with pytest.raises(ConnectionError), no_retry_on(ValueError):
        raise ConnectionError("the store is unavailable")


@pytest.fixture
def sent(monkeypatch):
    """The e-mails passed to the notifier."""
    mails = []

    class Notifier:
        def __init__(self, **arguments):
            self.arguments = arguments

        def __call__(self, context):
            mails.append((self.arguments, context))

    monkeypatch.setattr("airflow.providers.smtp.notifications.smtp.SmtpNotifier", Notifier)
    return mails


def test_failure_email_goes_to_every_recipient(sent, monkeypatch):
    monkeypatch.setenv("AIRFLOW_VAR_ML_FAILURE_EMAIL", "a@example.org, b@example.org")
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", "smtp://mail.example.org:25")

    failure_email.send_failure_email({"ti": "x"})

    assert sent == [({"to": ["a@example.org", "b@example.org"], "smtp_conn_id": "smtp_default"}, {"ti": "x"})]


def test_no_email_without_recipients(sent, monkeypatch):
    monkeypatch.setenv("AIRFLOW_VAR_ML_FAILURE_EMAIL", " ")
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", "smtp://mail.example.org:25")

    failure_email.send_failure_email({})

    assert sent == []


def test_no_email_without_an_smtp_server_but_a_warning(sent, monkeypatch, caplog):
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    def none(conn_id):
        raise AirflowNotFoundException(conn_id)

    monkeypatch.setenv("AIRFLOW_VAR_ML_FAILURE_EMAIL", "a@example.org")
    monkeypatch.setattr(Connection, "get", none)
    with caplog.at_level(logging.WARNING):
        failure_email.send_failure_email({})

    assert sent == []
    assert "a@example.org" in caplog.text
    assert "smtp_default" in caplog.text
