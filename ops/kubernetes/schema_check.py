"""`python -m ops.kubernetes.schema_check`: every rendered manifest against the schemas of Kubernetes' API.

The schemas are in the package kubernetes-validate. Kinds of other projects (Prometheus Operator) have none there and
are counted. Without the chart on this machine only the manifests beside it are checked.
"""

from __future__ import annotations

import functools
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import kubernetes_validate
import yaml
from kubernetes_validate import utils as schemas

from ops.kubernetes import chart, cluster_settings, rendering
from ops.project import ROOT, Project

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MINIMUM: Final = (
    "AIRFLOW_IMAGE=registry.example.com/airflow-ha:1",
    "KUBERNETES_DAGS=volume",
    "KUBERNETES_LOGS=volume",
)
VARIANTS: Final[dict[str, tuple[str, ...]]] = {
    "external data": (),
    "single data": ("COMPOSE_PROFILES=data,flower,observability",),
    "replicated data": (
        "COMPOSE_PROFILES=data-ha,flower,observability",
        "PATRONI_IMAGE=registry.example.com/patroni:1",
    ),
    "Git and S3": (
        "KUBERNETES_DAGS=git",
        "KUBERNETES_GIT_REPOSITORY=https://git.example.com/dags.git",
        "KUBERNETES_GIT_SECRET=git",
        "KUBERNETES_LOGS=s3",
        "KUBERNETES_LOGS_FOLDER=s3://logs.example.com/airflow",
        "KUBERNETES_LOGS_ENDPOINT=https://s3.example.com:9000",
        "KUBERNETES_LOGS_SECRET=logs",
        "KUBERNETES_LOGS_CA_SECRET=logs-ca",
        "KUBERNETES_PULL_SECRET=registry",
        "COMPOSE_PROFILES=flower",
    ),
    "Git by SSH": (
        "KUBERNETES_DAGS=git",
        "KUBERNETES_GIT_REPOSITORY=git@git.example.com:team/dags.git",
        "KUBERNETES_GIT_SECRET=git",
        "KUBERNETES_GIT_KNOWN_HOSTS=git.example.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA",
        "KUBERNETES_LOGS=s3",
        "KUBERNETES_LOGS_FOLDER=s3://logs",
        "COMPOSE_PROFILES=",
    ),
    "autoscaling": ("WORKER_CEILING=8", "COMPOSE_PROFILES=data,flower,observability"),
}
"""The settings of each rendering that is checked, beside MINIMUM."""
FOREIGN: Final = ("monitoring.coreos.com/v1", "keda.sh/v1alpha1")
VERSION: Final = ".".join(chart.KUBERNETES.split(".")[:2])
YAML: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Ten times as fast with libyaml."""

# The package would read its definitions, 1.5 MB, once more for each object.
schemas.schema_contents = functools.cache(schemas.schema_contents)


def render(given: Sequence[str], *, with_chart: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every manifest of a rendering, with its file.

    Args:
        given: The settings.
        with_chart: Whether to render the chart too, which takes helm and the chart.
    """
    project = Project(ROOT, ROOT / "compose/nowhere")
    of = rendering.cluster_of(project, cluster_settings.read(project, [*MINIMUM, *given]))
    for folder, parts in rendering.base(project, of).items():
        for name, objects in parts.items():
            yield from ((f"{folder}/{name}.yaml", document) for document in objects)
    if with_chart:
        with tempfile.TemporaryDirectory() as temporary:
            values = Path(temporary, rendering.VALUES)
            values.write_text(rendering.dump(rendering.chart_values(of)), encoding="utf-8")
            rendered = chart.template(values, of.settings)
        yield from (("chart", document) for document in yaml.load_all(rendered, YAML) if document)


def problems(document: dict[str, Any]) -> list[str]:
    """Return why a manifest does not match its schema."""
    try:
        kubernetes_validate.validate(document, VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        where = ".".join(map(str, error.path))
        return [f"{document['kind']} {document['metadata']['name']}: {where}: {error.message}"]
    return []


def main() -> None:
    """Check every variant; exit with 1 if a manifest does not match."""
    with_chart = chart.is_at_hand() and chart.has_helm()
    found: list[str] = []
    counted: Counter[str] = Counter()
    for variant, given in VARIANTS.items():
        for name, document in render(given, with_chart=with_chart):
            foreign = document["apiVersion"] in FOREIGN
            counted["without schema" if foreign else "checked"] += 1
            found += [] if foreign else [f"{variant}: {name}: {problem}" for problem in problems(document)]
    if not with_chart:
        print(f"the chart is not checked: helm or {chart.VARIABLE} is missing")
    print(f"manifests: {dict(counted)}")
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
