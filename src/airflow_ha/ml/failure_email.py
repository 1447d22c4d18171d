"""An e-mail after a task's last try has failed. It needs recipients and an SMTP server; without them it is off."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.sdk import Context

RECIPIENTS_VARIABLE = "ml_failure_email"
SMTP_CONNECTION = "smtp_default"

log = logging.getLogger(__name__)


def send_failure_email(context: Context) -> None:
    """Send an e-mail to the recipients in the Variable `ml_failure_email` through the connection `smtp_default`.

    Both are read only after a failure, because parsing a DAG must not read Variables. If one of them is not set,
    nothing is sent. This notifier replaces Airflow's deprecated `email_on_failure`:
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
        log.warning("cannot send a failure e-mail to %s: no connection %s", ", ".join(to), SMTP_CONNECTION)
        return
    from airflow.providers.smtp.notifications.smtp import SmtpNotifier

    SmtpNotifier(to=to, smtp_conn_id=SMTP_CONNECTION)(context)


def recipients(text: str | None) -> list[str]:
    """Return the addresses of a comma-separated list."""
    return [address.strip() for address in (text or "").split(",") if address.strip()]
