"""A value on its way to Prometheus. Apart from what sends it, which is slow to import."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Measurement(NamedTuple):
    """One value of one gauge.

    Attributes:
        name: as in Prometheus, unit last, `airflow_` first: `airflow_ha_canary_latency_seconds`.
        value: in that unit.
        attributes: labels; few, and with few values.
    """

    name: str
    value: float
    attributes: Mapping[str, str] = MappingProxyType({})
