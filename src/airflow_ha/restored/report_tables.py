"""The reports of this package as tables, for the container and for `./ops/stack`; it imports nothing of Airflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MOST_ROWS: Final = 100
"""Rows that a table shows; `--json` has all."""


def tables(report: Mapping[str, Any]) -> Iterator[Table | str]:
    """Yield a table for each list of objects in a report, and a line for everything else."""
    for name, value in report.items():
        title = name.replace("_", " ")
        if isinstance(value, list) and value and isinstance(value[0], dict):
            yield table_of(title, value)
        elif isinstance(value, (list, dict)):
            yield f"{title}: {plain(value) or 'none'}"
        else:
            yield f"{title}: {value}"


def table_of(title: str, rows: list[dict[str, Any]]) -> Table:
    """Return a table whose columns are the keys of the rows."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    more = len(rows) - MOST_ROWS
    table = Table(*(column.replace("_", " ") for column in columns), title=title, title_justify="left")
    table.caption = f"and {more} more" if more > 0 else None
    for column in table.columns:
        column.overflow = "fold"
    for row in rows[:MOST_ROWS]:
        table.add_row(*(plain(row.get(column)) for column in columns))
    return table


def plain(value: Any) -> str:
    """Return a value as text without brackets, which Rich would read as markup."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {number}" for key, number in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value).replace("[", r"\[")
