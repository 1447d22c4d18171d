"""Everything for one cluster, from the compose files and the settings: the chart's values, and a Kustomize base.

The base is generated: its manifests are derived from the compose files, and a chart of our own would repeat them as
templates. Kustomize applies it as it is, and operators patch it without a change here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import yaml

from ops import compose_model, secrets_store, worker_slots
from ops.images.versions import software_version
from ops.kubernetes import (
    airflow_parts,
    cluster_settings,
    data_nodes,
    manifests,
    monitoring_parts,
    policies,
    telemetry_parts,
    translation,
    values,
)
from ops.kubernetes.chart import VERSION
from ops.kubernetes.translation import Cluster
from ops.project import ADMIN
from ops.services import GATEWAY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ops.kubernetes.translation import Manifest
    from ops.project import Project

VALUES: Final = "values.yaml"
CORE, DATA, MONITORING = "core", "data", "monitoring"
"""The folders of the base; `monitoring` needs the Prometheus Operator."""
SECRETS: Final = "secrets"
DATA_READERS: Final = ("postgres", "redis", "backup")
MONITORING_READERS: Final = ("alertmanager", "prometheus")
EXPORTERS: Final = ("postgres-exporter", "redis-exporter")


def readers(cluster: Cluster) -> set[str]:
    """Return who reads secrets (secrets_store.READERS) in this cluster."""
    has_data, has_metrics = bool(data_nodes.components_of(cluster.profiles)), "observability" in cluster.profiles
    return {
        "airflow",
        GATEWAY,
        *secrets_store.ROLLED,
        *(DATA_READERS if has_data else ()),
        *(MONITORING_READERS if has_metrics else ()),
        *(EXPORTERS if has_metrics else ()),
    }


def cluster_of(project: Project, settings: Mapping[str, str]) -> Cluster:
    """Return the cluster with these settings."""
    complete = cluster_settings.derived(project, settings)
    complete |= worker_slots.raised_parallelism(compose_model.read(project.compose_directory, complete), complete)
    return Cluster(project.compose_directory, compose_model.read(project.compose_directory, complete), complete)


def chart_values(cluster: Cluster) -> Manifest:
    """Return the values of the chart."""
    return values.values(cluster, software_version(cluster.settings["AIRFLOW_BASE_IMAGE"]))


def base(project: Project, cluster: Cluster) -> dict[str, dict[str, list[Manifest]]]:
    """Return the manifests of the base, by folder and file."""
    on = cluster.profiles
    core = {
        "namespace": [manifests.manifest("v1", "Namespace", cluster.settings["KUBERNETES_NAMESPACE"], cluster)],
        "shared-volumes": airflow_parts.shared_claims(cluster),
        "gateway": airflow_parts.gateway(cluster),
        "execution-api": airflow_parts.execution_api(cluster),
        "maintenance": airflow_parts.maintenance(cluster),
        "network-policies": [*policies.policies(cluster), *policies.from_keda(cluster)],
    }
    folders: dict[str, dict[str, list[Manifest]]] = {CORE: core}
    if "flower" in on:
        core["flower"] = airflow_parts.flower(cluster)
    if "data" in on:
        folders[DATA] = {"postgres": data_nodes.single_postgres(cluster), "redis": data_nodes.single_redis(cluster)}
    if "data-ha" in on:
        parts = {"postgres": data_nodes.replicated_postgres(cluster), "redis": data_nodes.replicated_redis(cluster)}
        folders[DATA] = parts
    if "observability" in on:
        core["telemetry"] = telemetry_parts.telemetry(cluster)
        folders[MONITORING] = {
            "rules": monitoring_parts.prometheus_rules(cluster, project.root),
            "monitors": monitoring_parts.monitors(cluster, project.root),
            "dashboards": monitoring_parts.dashboards(cluster, project.root),
            "alertmanager": monitoring_parts.alertmanager(cluster, project.root, secrets_store.optional(project)),
        }
    return folders


def secrets(project: Project, cluster: Cluster) -> list[Manifest]:
    """Return the Secrets: the files that containers mount on Docker, and one with values that are not used."""
    by_reader: dict[str, dict[str, str]] = {}
    for path, text in secrets_store.mounted_files(project, cluster.settings).items():
        reader, _, name = path.partition("/")
        if reader in readers(cluster):
            by_reader.setdefault(reader, {})[name] = text
    if "prometheus" in by_reader:
        by_reader["prometheus"]["username"] = ADMIN
    unread = dict.fromkeys(("connection", "fernet-key", "api-secret-key", "jwt-secret"), "unused")
    return [
        manifests.manifest("v1", "Secret", values.CHART_SECRET, cluster, stringData=unread),
        *(
            manifests.manifest("v1", "Secret", translation.secret_name(reader), cluster, stringData=texts)
            for reader, texts in sorted(by_reader.items())
        ),
    ]


def texts(project: Project, cluster: Cluster) -> dict[str, str]:
    """Return the text of every file that `render --to` writes, by its path. None has a secret."""
    namespace = cluster.settings["KUBERNETES_NAMESPACE"]
    files = {VALUES: HEADER + dump(chart_values(cluster))}
    for folder, parts in base(project, cluster).items():
        files |= {f"{folder}/{name}.yaml": dump_all(objects) for name, objects in parts.items()}
        files[f"{folder}/kustomization.yaml"] = kustomization(namespace, [f"{name}.yaml" for name in parts])
    return files


HEADER: Final = f"# Values of the Airflow chart {VERSION}, written by `./ops/stack kubernetes render`.\n"


def kustomization(namespace: str, resources: list[str]) -> str:
    """Return the file that names the parts of a folder."""
    content = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": namespace,
        "resources": resources,
    }
    return dump(content)


class _Readable(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        """Write no YAML anchors."""
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Readable.add_representer(str, _text)


def dump(content: Manifest) -> str:
    """Return an object as YAML."""
    return yaml.dump(content, Dumper=_Readable, sort_keys=False, allow_unicode=True, width=10_000)


def dump_all(objects: list[Manifest]) -> str:
    """Return objects as documents of YAML."""
    return yaml.dump_all(objects, Dumper=_Readable, sort_keys=False, allow_unicode=True, width=10_000)
