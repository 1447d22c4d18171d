"""The thresholds of findings: Airflow Variables, each with a default.

All of them are optional. If a value is invalid, the default applies, and a finding (`AirflowMonitoringMisconfigured`)
names the Variable, its value and its range. Every check reads them, so a change applies within a minute.

| Airflow Variable | default | range | finding if |
|---|---|---|---|
| `monitoring_failure_rate` | 0.2 | 0 to 1 | a larger share of ended runs failed, of all DAGs or one |
| `monitoring_min_ended_runs` | 5 | 1 to 100000 | (fewer ended runs than this give no finding) |
| `monitoring_window_hours` | 24 | 1 to 168 | (the window of runs and failed tasks) |
| `monitoring_queued_seconds` | 300 | 30 to 86400 | a task has been queued for longer |
| `monitoring_overdue_seconds` | 300 | 30 to 86400 | a DAG is overdue for longer, and below `max_active_runs` |
| `monitoring_job_silent_seconds` | 120 | 30 to 3600 | a component has no heartbeat for longer |
| `monitoring_pool_full_seconds` | 300 | 30 to 86400 | a pool has no free slot, and tasks wait for one, for longer |
| `monitoring_workers_full_seconds` | 300 | 30 to 86400 | all workers are full, and tasks are queued, for longer |

Failure rates exclude DAGs with the tag `monitoring` (the canary and the monitoring DAG): at a run a minute they would
dominate all others, and each has its own alert.
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
    """The values of the Variables; a Variable's name is `monitoring_` plus the field's name."""

    failure_rate: float = _setting(0.2, 0, 1)
    min_ended_runs: float = _setting(5, 1, 100_000)
    window_hours: float = _setting(24, 1, 168)
    queued_seconds: float = _setting(300, 30, 86_400)
    overdue_seconds: float = _setting(300, 30, 86_400)
    job_silent_seconds: float = _setting(120, 30, 3600)
    pool_full_seconds: float = _setting(300, 30, 86_400)
    workers_full_seconds: float = _setting(300, 30, 86_400)


class ThresholdError(ValueError):
    """A Variable has an invalid value.

    Attributes:
        variable: its name.
    """

    def __init__(self, variable: str, text: str, least: float, most: float, default: float) -> None:
        super().__init__(
            f"cannot read the Airflow Variable {variable}: {text!r} is not a number from {least:g} to {most:g}; "
            f"the default {default:g} applies"
        )
        self.variable = variable


def number(variable: str, text: str, *, least: float, most: float, default: float) -> float:
    """Return the number in a Variable's text.

    Raises:
        ThresholdError: the text is not a number in the range.
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
        get: returns a Variable's text by its name; None if it is not set.

    Returns:
        The thresholds, with the default for each invalid Variable, and the errors.
    """
    thresholds, errors = Thresholds(), []
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
            thresholds = replace(thresholds, **{each.name: value})
    return thresholds, errors
