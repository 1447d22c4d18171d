"""An e-mail when a task has failed for good: off until both recipients and an SMTP server are configured."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.sdk import Context

RECIPIENTS_VARIABLE = "ml_failure_email"
SMTP_CONNECTION = "smtp_default"

log = logging.getLogger(__name__)


def send_failure_email(context: Context) -> None:
    """Write to those in the Airflow Variable `ml_failure_email`, through the connection `smtp_default`.

    Both are looked up only now, when a task has failed: parsing a DAG must not ask for Variables. Where one
    of them is not set nothing is sent. Airflow's own `email_on_failure` is deprecated for this notifier:
    https://airflow.apache.org/docs/apache-airflow-providers-smtp/stable/notifications/smtp_notifier_howto_guide.html
    """
    from airflow.sdk import Connection, Variable
    from airflow.sdk.exceptions import AirflowNotFoundException

    to = recipients(Variable.get(RECIPIENTS_VARIABLE, default=None))
    if not to:
        return
    try:
        Connection.get(SMTP_CONNECTION)
    except AirflowNotFoundException:
        log.warning("No failure e-mail to %s: there is no connection %s", ", ".join(to), SMTP_CONNECTION)
        return
    from airflow.providers.smtp.notifications.smtp import SmtpNotifier

    SmtpNotifier(to=to, smtp_conn_id=SMTP_CONNECTION)(context)


def recipients(text: str | None) -> list[str]:
    """The addresses in a comma-separated list; none where it is not set."""
    return [address.strip() for address in (text or "").split(",") if address.strip()]
