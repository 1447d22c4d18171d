"""What is rendered for a cluster with some settings."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from ops.kubernetes import chart, cluster_settings, rendering
from ops.kubernetes.schema_check import MINIMUM
from ops.project import ROOT, Project

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ops.kubernetes.translation import Cluster

PROJECT = Project(ROOT, ROOT / "compose/nowhere")


@functools.cache
def cluster_with(*given: str) -> Cluster:
    """Return a cluster with these settings."""
    return rendering.cluster_of(PROJECT, cluster_settings.read(PROJECT, [*MINIMUM, *given]))


@functools.cache
def manifests_with(*given: str) -> list[dict[str, Any]]:
    """Return all manifests beside the chart, as they are written."""
    texts = rendering.texts(PROJECT, cluster_with(*given))
    return [
        document
        for name, text in texts.items()
        if name != rendering.VALUES and not name.endswith("kustomization.yaml")
        for document in yaml.safe_load_all(text)
    ]


def chart_manifests(folder: Path, given: Sequence[str]) -> list[dict[str, Any]]:
    """Return what the chart renders; skip the test where the chart or helm is missing."""
    if not (chart.is_at_hand() and chart.has_helm()):
        pytest.skip(f"helm or the chart is missing: set {chart.VARIABLE} to airflow-{chart.VERSION}.tgz")
    of = cluster_with(*given)
    path = folder / rendering.VALUES
    path.write_text(rendering.dump(rendering.chart_values(of)))
    return [document for document in yaml.safe_load_all(chart.template(path, of.settings)) if document]


def pod_of(document: dict[str, Any]) -> dict[str, Any] | None:
    """Return the specification of the pods of an object; None if it has none."""
    spec = document.get("spec") or {}
    return (spec.get("template") or {}).get("spec")
