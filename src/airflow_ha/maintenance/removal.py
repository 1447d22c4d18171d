"""What one step of maintenance removed, or in a dry run would remove."""

from __future__ import annotations

from typing import NamedTuple

from airflow_ha import sizes


class Removal(NamedTuple):
    """The result of a step.

    Attributes:
        kind: The name of what goes, also the label of the metric.
        number: Rows, files or versions.
        size: Their bytes; None for rows.
    """

    kind: str
    number: int
    size: int | None = None

    def __str__(self) -> str:
        size = "" if self.size is None else f" ({sizes.shown(self.size)})"
        return f"{self.kind.replace('_', ' ')}: {self.number:,}{size}"
