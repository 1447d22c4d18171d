"""One check from start to end: what the task of `monitoring_dag` does."""

from __future__ import annotations

import logging
import os
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_ha.monitoring import alerts, check_state, checks, gauges, thresholds
from airflow_ha.monitoring.airflow_api import AirflowApi, AirflowApiError
from airflow_ha.monitoring.alertmanager_client import Delivery, addresses, deliver
from airflow_ha.monitoring.check_state import Memory
from airflow_ha.monitoring.observe import observe
from airflow_ha.telemetry.measurement import Measurement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from airflow_ha.monitoring.observations import Observations

CONNECTION = "airflow_api"
"""The Airflow Connection to the REST API, with the monitoring account; `airflow_ha.migrate` makes it."""

ALERTMANAGERS = "AIRFLOW_HA_ALERTMANAGERS"
"""The environment variable with the Alertmanagers' URLs, between commas. Empty: nobody is told."""

log = logging.getLogger(__name__)


def check_airflow() -> dict[str, int]:
    """Look, find, tell and measure once, inside a task.

    Returns:
        How many findings there are, by name.
    """
    from airflow.sdk import Connection, Variable
    from airflow.sdk.configuration import conf

    from airflow_ha.telemetry.otel import record_gauges

    account = Connection.get(CONNECTION)
    url = f"{account.schema or 'http'}://{account.host}:{account.port}"
    with closing(AirflowApi(url, account.login or "", account.password or "")) as api:
        return check(
            lambda limits, at: observe(api, limits, at),
            alertmanagers=addresses(os.environ.get(ALERTMANAGERS)),
            get_variable=lambda name: Variable.get(name, default=None),
            set_variable=lambda name, text: Variable.set(name, text, description=check_state.DESCRIPTION),
            # The workers' own setting: this runs on one of them.
            slots=conf.getint("celery", "worker_concurrency"),
            record=record_gauges,
            tell=deliver,
        )


def check(
    look: Callable[[thresholds.Thresholds, datetime], Observations],
    *,
    alertmanagers: Sequence[str],
    get_variable: Callable[[str], str | None],
    set_variable: Callable[[str, str], None],
    slots: int,
    record: Callable[[Iterable[Measurement]], None],
    tell: Callable[[Iterable[check_state.Told], Sequence[str], datetime], Delivery],
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> dict[str, int]:
    """Look, find, tell and measure once.

    Args:
        look: gives what is to be seen of Airflow.
        alertmanagers: their URLs; with none, findings are only logged and measured.
        get_variable: an Airflow Variable's text; None when it is not set.
        set_variable: sets one.
        slots: how many tasks one worker runs at a time.
        record: takes what was measured.
        tell: tells the Alertmanagers.
        now: the clock.

    Returns:
        How many findings there are, by name.

    Raises:
        AirflowApiError: Airflow could not be seen; what was told before is told again, so that it does not end.
        AlertmanagersAwayError: there are Alertmanagers, and none took what was found.
    """
    at = now()
    limits, errors = thresholds.read(get_variable)
    for error in errors:
        log.error("%s", error)
    stored = get_variable(check_state.VARIABLE)
    before = check_state.load(stored)
    try:
        seen = look(limits, at)
    except AirflowApiError:
        if lasting_ones := [told for told in before.told if told.ended_at is None]:
            tell(lasting_ones, alertmanagers, at)
        raise
    for path in seen.cut:
        log.warning("%s has more entries than a check reads; the others were not looked at", path)
    lasting = check_state.remember(before.seen, check_state.conditions(seen, slots), at)
    found = [*checks.check(seen, Memory(seen=lasting), limits, slots), *checks.misconfigured(errors)]
    for finding in found:
        log.warning("finding %s %s: %s", finding.alertname, dict(finding.labels), finding.summary)

    delivery = tell(alerts.to_tell(found, before.told, alertmanagers, at), alertmanagers, at)
    after = Memory(delivery.told, lasting)
    if check_state.dump(after) != check_state.dump(before):
        set_variable(check_state.VARIABLE, check_state.dump(after))

    complete = delivery.reached or not alertmanagers
    values = list(gauges.measured(seen, before, after, found))
    record([*values, Measurement(gauges.LAST_SUCCESS, now().timestamp())] if complete else values)
    log.info("%s", summary(seen, checks.counts(found), delivery))
    delivery.require()
    return {name: count for name, count in checks.counts(found).items() if count}


def summary(seen: Observations, counts: Mapping[str, int], delivery: Delivery) -> str:
    """One line for the log."""
    return (
        f"runs ended={seen.all_runs.ended} failed={seen.all_runs.failed} queued={len(seen.queued)} "
        f"running={sum(seen.running.values())} workers={len(seen.running)} pools={len(seen.pools)} "
        f"jobs={len(seen.jobs)} dags due={len(seen.due)} import_errors={len(seen.import_problems)} "
        f"findings={sum(counts.values())} alertmanagers={delivery.reached} of {delivery.reached + len(delivery.away)}"
    )
