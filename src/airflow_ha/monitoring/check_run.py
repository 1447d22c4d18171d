"""One complete check: the task of `monitoring_dag`."""

from __future__ import annotations

import logging
import os
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from airflow_ha.monitoring import alerts, check_state, checks, gauges, thresholds
from airflow_ha.monitoring.airflow_api import Account, AirflowApi, AirflowApiError, LogInRefusedError
from airflow_ha.monitoring.alertmanager_client import Delivery, alertmanager_urls, deliver
from airflow_ha.monitoring.check_state import CheckState
from airflow_ha.monitoring.observe import observe
from airflow_ha.telemetry.measurement import Measurement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from airflow_ha.monitoring.observations import Observations

CONNECTION = "airflow_api"
"""The Airflow Connection with the monitoring account, for the REST API and the gateway's door to the Alertmanagers.

`airflow_ha.migrate` creates it.
"""

ALERTMANAGERS = "AIRFLOW_HA_ALERTMANAGERS"
"""The environment variable with the Alertmanagers' URLs at the gateway, comma-separated. If empty, no alert is sent."""

ROTATED_TRIES = 2
ROTATED_SECONDS = 5.0
"""How often, and after how many seconds, the Connection is read again after a refused log-in."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ports:
    """The input and output of a check, replaced in tests.

    Attributes:
        observe: reads Airflow through its REST API.
        get_variable: returns an Airflow Variable's text; None if it is not set.
        set_variable: sets an Airflow Variable.
        record: exports gauges.
        send: sends alerts to the Alertmanagers.
        now: the clock.
    """

    observe: Callable[[thresholds.Thresholds, datetime], Observations]
    get_variable: Callable[[str], str | None]
    set_variable: Callable[[str, str], None]
    record: Callable[[Iterable[Measurement]], None]
    send: Callable[[Iterable[check_state.SentAlert], Sequence[str], datetime], Delivery]
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


def check_airflow() -> dict[str, int]:
    """Run one check inside a task.

    Returns:
        The number of findings by alert name.
    """
    from airflow.sdk import Connection, Variable
    from airflow.sdk.configuration import conf

    from airflow_ha.telemetry.otel import record_gauges

    def check_with(account: Account) -> dict[str, int]:
        with closing(AirflowApi(account)) as api:
            ports = Ports(
                observe=lambda limits, at: observe(api, limits, at),
                get_variable=lambda name: Variable.get(name, default=None),
                set_variable=lambda name, text: Variable.set(name, text, description=check_state.DESCRIPTION),
                record=record_gauges,
                send=partial(deliver, log_in=(account.login, account.password)),
            )
            return check(
                ports,
                alertmanagers=alertmanager_urls(os.environ.get(ALERTMANAGERS)),
                # This task runs on a worker, so this is the workers' own setting.
                slots=conf.getint("celery", "worker_concurrency"),
            )

    def account() -> Account:
        connection = Connection.get(CONNECTION)
        url = f"{connection.schema or 'http'}://{connection.host}:{connection.port}"
        return Account(url, connection.login or "", connection.password or "")

    return with_current_account(account, check_with)


def with_current_account(account: Callable[[], Account], run: Callable[[Account], dict[str, int]]) -> dict[str, int]:
    """Run a check, and again with the account of now if Airflow refuses the log-in.

    A rotation of the password changes the account, then the Connection (airflow_ha.migrate).

    Args:
        account: reads the account from the Connection.
        run: the check.
    """
    for _ in range(ROTATED_TRIES):
        try:
            return run(account())
        except LogInRefusedError as error:
            log.warning("%s; reading the Connection again in %g s", error, ROTATED_SECONDS)
            time.sleep(ROTATED_SECONDS)
    return run(account())


def check(ports: Ports, *, alertmanagers: Sequence[str], slots: int) -> dict[str, int]:
    """Observe Airflow, compare with the thresholds, send alerts and export gauges.

    Args:
        ports: input and output.
        alertmanagers: their URLs; if empty, findings are only logged and exported as gauges.
        slots: how many tasks one worker runs at a time.

    Returns:
        The number of findings by alert name.

    Raises:
        AirflowApiError: Airflow cannot be observed; the firing alerts are sent again, so that they do not expire.
        AlertmanagersUnreachableError: Alertmanagers are configured, and none accepted the alerts.
    """
    at = ports.now()
    limits, errors = thresholds.read(ports.get_variable)
    for error in errors:
        log.error("%s", error)
    before = check_state.load(ports.get_variable(check_state.VARIABLE))
    try:
        observed = ports.observe(limits, at)
    except AirflowApiError:
        if firing := [alert for alert in before.alerts if alert.ended_at is None]:
            ports.send(firing, alertmanagers, at)
        raise
    for path in observed.truncated:
        log.warning("%s has more entries than a check reads; the rest was not checked", path)
    conditions = check_state.update_conditions(before.conditions, check_state.current_conditions(observed, slots), at)
    findings = [
        *checks.check(observed, CheckState(conditions=conditions), limits, slots),
        *checks.misconfigured(errors),
    ]
    for finding in findings:
        log.warning("finding %s %s: %s", finding.alertname, dict(finding.labels), finding.summary)

    delivery = ports.send(alerts.alerts_to_send(findings, before.alerts, alertmanagers, at), alertmanagers, at)
    after = CheckState(delivery.alerts, conditions)
    if check_state.dump(after) != check_state.dump(before):
        ports.set_variable(check_state.VARIABLE, check_state.dump(after))

    complete = delivery.reached or not alertmanagers
    values = list(gauges.measurements(observed, before, after, findings))
    ports.record([*values, Measurement(gauges.LAST_SUCCESS, ports.now().timestamp())] if complete else values)
    log.info("%s", summary(observed, checks.counts(findings), delivery))
    delivery.require()
    return {name: count for name, count in checks.counts(findings).items() if count}


def summary(observed: Observations, counts: Mapping[str, int], delivery: Delivery) -> str:
    """Return one line for the log."""
    return (
        f"runs ended={observed.all_runs.ended} failed={observed.all_runs.failed} queued={len(observed.queued)} "
        f"running={sum(observed.running.values())} workers={len(observed.running)} pools={len(observed.pools)} "
        f"jobs={len(observed.jobs)} dags due={len(observed.due)} import_errors={len(observed.import_problems)} "
        f"findings={sum(counts.values())} "
        f"alertmanagers={delivery.reached} of {delivery.reached + len(delivery.unreachable)}"
    )
