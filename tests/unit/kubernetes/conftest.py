"""A cluster with the replicated data tier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ops.kubernetes import rendering
from ops.kubernetes.schema_check import VARIANTS
from tests.unit.kubernetes.rendered import cluster_with

if TYPE_CHECKING:
    from ops.kubernetes.translation import Cluster


@pytest.fixture
def cluster() -> Cluster:
    """A cluster with the replicated data tier."""
    return cluster_with(*VARIANTS["replicated data"])


@pytest.fixture
def values(cluster) -> dict[str, Any]:
    """The chart's values of that cluster."""
    return rendering.chart_values(cluster)
