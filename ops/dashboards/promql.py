"""Expressions that more than one panel asks."""

from __future__ import annotations


def quantile(share: float, histogram: str, *labels: str, over: str = "$__rate_interval") -> str:
    """The value that this share of the observations stays under.

    Args:
        share: of 1.
        histogram: its name without `_bucket`.
        labels: one line for each of their values.
        over: the time looked at.
    """
    return f"histogram_quantile({share}, sum by ({', '.join(('le', *labels))}) (rate({histogram}_bucket[{over}])))"


def tasks_in(state: str) -> str:
    """How many task instances are in a state, by the database.

    Every scheduler tells the same number: the largest, not the sum. A state in which no task ever was is not told at
    all: 0, as long as any scheduler speaks.
    """
    return f"sum(max by (queue, dag_id, task_id) (airflow_ti_{state})) or {zero_of_schedulers()}"


def zero_of_schedulers() -> str:
    """0 while any scheduler speaks, nothing while none does: for counters that begin with their first event."""
    return "0 * sum(airflow_executor_open_slots)"
