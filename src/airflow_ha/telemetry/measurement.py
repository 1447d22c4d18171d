"""A measured value. This is a separate module because the modules that send it are slow to import."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Measurement(NamedTuple):
    """One value of one gauge.

    Attributes:
        name: as in Prometheus, with prefix and unit: `airflow_ha_canary_latency_seconds`.
        value: in that unit.
        attributes: labels of low cardinality.
    """

    name: str
    value: float
    attributes: Mapping[str, str] = MappingProxyType({})
