"""Expressions of more than one panel."""

from __future__ import annotations


def quantile(share: float, histogram: str, *labels: str, over: str = "$__rate_interval") -> str:
    """Return the expression for a quantile of a histogram.

    Args:
        share: The quantile, for instance 0.95.
        histogram: Name of the histogram without `_bucket`.
        labels: Labels with one series for each of their values.
        over: Range of the rate.
    """
    return f"histogram_quantile({share}, sum by ({', '.join(('le', *labels))}) (rate({histogram}_bucket[{over}])))"


def tasks_in(state: str) -> str:
    """Return the expression for the number of task instances in a state.

    Every scheduler reports the number in the database, so the maximum counts, not the sum. A state that no task was
    ever in has no series; the expression is then 0 while a scheduler reports.
    """
    return f"sum(max by (queue, dag_id, task_id) (airflow_ti_{state})) or {zero_of_schedulers()}"


def zero_of_schedulers() -> str:
    """Return an expression that is 0 while a scheduler reports, for counters that have no series at first."""
    return "0 * sum(airflow_executor_open_slots)"
