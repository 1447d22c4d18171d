"""When what was seen becomes a finding: Airflow Variables, each with a default.

All of them may be left unset. One that is set to what it does not take is not used: its default is, and a finding
(`AirflowMonitoringMisconfigured`) names it, its value and what it takes. They are read at every check, so a change
counts within a minute.

| Airflow Variable | default | takes | a finding when |
|---|---|---|---|
| `monitoring_failure_rate` | 0.2 | 0 to 1 | more than this share of the ended DAG runs failed, of all DAGs or of one |
| `monitoring_min_ended_runs` | 5 | 1 to 100000 | never with fewer ended runs than these |
| `monitoring_window_hours` | 24 | 1 to 168 | (how far back runs and failed tasks are looked at) |
| `monitoring_queued_seconds` | 300 | 30 to 86400 | a task has been queued for longer |
| `monitoring_overdue_seconds` | 300 | 30 to 86400 | a DAG's next run is due for longer, and nothing holds it back |
| `monitoring_job_silent_seconds` | 120 | 30 to 3600 | a scheduler, dag-processor or triggerer gave no sign for longer |
| `monitoring_pool_full_seconds` | 300 | 30 to 86400 | a pool has had no free slot, and tasks waiting, for longer |
| `monitoring_workers_full_seconds` | 300 | 30 to 86400 | every worker has been full, and tasks queued, for longer |

DAGs with the tag `monitoring` (the canary, and the monitoring DAG itself) are no part of any failure rate: at a run a
minute they would drown all others, and each has an alert of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

PREFIX = "monitoring_"


def _setting(default: float, least: float, most: float) -> Any:
    return field(default=default, metadata={"least": least, "most": most})


@dataclass(frozen=True)
class Thresholds:
    """The Variables' values; each is `monitoring_` and the name here."""

    failure_rate: float = _setting(0.2, 0, 1)
    min_ended_runs: float = _setting(5, 1, 100_000)
    window_hours: float = _setting(24, 1, 168)
    queued_seconds: float = _setting(300, 30, 86_400)
    overdue_seconds: float = _setting(300, 30, 86_400)
    job_silent_seconds: float = _setting(120, 30, 3600)
    pool_full_seconds: float = _setting(300, 30, 86_400)
    workers_full_seconds: float = _setting(300, 30, 86_400)


class ThresholdError(ValueError):
    """A Variable is set to what it does not take.

    Attributes:
        variable: its name.
    """

    def __init__(self, variable: str, text: str, least: float, most: float, default: float) -> None:
        super().__init__(
            f"the Airflow Variable {variable} is {text!r}; it must be a number from {least:g} to {most:g}, "
            f"such as {default:g}, which is used until then"
        )
        self.variable = variable


def number(variable: str, text: str, *, least: float, most: float, default: float) -> float:
    """Read one Variable's text.

    Raises:
        ThresholdError: the text is no number in the range.
    """
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise ThresholdError(variable, text, least, most, default)
    return value


def read(get: Callable[[str], str | None]) -> tuple[Thresholds, list[ThresholdError]]:
    """Read all Variables.

    Args:
        get: a Variable's text by its name; None when it is not set.

    Returns:
        The thresholds, with the default for each bad one, and what is wrong with those.
    """
    found, errors = Thresholds(), []
    for each in fields(Thresholds):
        variable = PREFIX + each.name
        text = get(variable)
        if text is None:
            continue
        try:
            value = number(variable, text, default=each.default, **each.metadata)  # type: ignore[arg-type]
        except ThresholdError as error:
            errors.append(error)
        else:
            found = replace(found, **{each.name: value})
    return found, errors
