"""Values of the official Airflow chart, from the compose services.

The chart's defaults that these values replace, and why:

- It gives every component the database's URL and makes new keys at each render: `enableBuiltInSecretEnvVars` and the
  `*SecretName` turn both off, and each component has the secret files of its compose service.
- Its probes start Airflow, which takes longer than their timeout on a busy node.
- It mounts DAGs and logs writable everywhere: `persistence` is off, and each component has the mounts of its service.
- A migration as a plain Job cannot be changed by the next `helm upgrade`: it stays a hook. So no `helm --wait`: pods
  wait for the hook, which runs once Helm's wait is over.
- It has no second API Deployment, no policies and no constraints that survive an upgrade: see manifests.py.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Final

from ops.images.versions import repository_and_tag
from ops.kubernetes import keda, remote_parts, translation
from ops.kubernetes.translation import PREFIX, TASK_LOGS, as_list

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ops.kubernetes.translation import Cluster, Manifest, Service

COMPONENTS: Final = {
    "migrate": "migrateDatabaseJob",
    "api-server": "apiServer",
    "scheduler": "scheduler",
    "dag-processor": "dagProcessor",
    "triggerer": "triggerer",
    "worker": "workers",
}
"""The chart's key of each compose service."""

CHART_SECRET: Final = f"{PREFIX}-chart"
"""The chart requires the names of Secrets that no component reads."""
GROUP: Final = 0
USER: Final = 50000
POD_SECURITY: Final = {
    "runAsUser": USER,
    "runAsGroup": GROUP,
    "fsGroup": GROUP,
    "fsGroupChangePolicy": "OnRootMismatch",
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY: Final = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
API_PROBE: Final = {"timeoutSeconds": translation.PROBE_TIMEOUT, "periodSeconds": 10, "failureThreshold": 6}
"""The chart fixes the path of these probes, which is cheap."""


def values(cluster: Cluster, airflow_version: str) -> Manifest:
    """Return the values.

    Args:
        cluster: The cluster.
        airflow_version: The version of Airflow in the image.
    """
    settings = cluster.settings
    services = {name: cluster.service(name) for name in COMPONENTS}
    environments = {name: component_environment(of) for name, of in services.items()}
    common = common_environment(list(environments.values()))
    components = {
        name: component(of, {key: value for key, value in environments[name].items() if key not in common})
        for name, of in services.items()
    }
    return {
        "fullnameOverride": cluster.release,
        "airflowVersion": airflow_version,
        **images(settings),
        "executor": "CeleryExecutor",
        "uid": USER,
        "gid": GROUP,
        "securityContexts": {"pod": POD_SECURITY, "containers": CONTAINER_SECURITY},
        **secrets(),
        **switched_off(),
        "tolerations": translation.tolerations(settings),
        "env": as_list(common),
        "dags": {"gitSync": remote_parts.git_sync(settings)} if remote_parts.has_git(settings) else {},
        **components_by_key(components, cluster),
    }


def component_environment(of: Service) -> dict[str, str]:
    """Return the environment of a component of the chart."""
    values = translation.environment(of) | {"AIRFLOW__LOGGING__BASE_LOG_FOLDER": TASK_LOGS}
    values |= remote_parts.log_environment(of.name, of.settings)
    # The chart mounts an airflow.cfg in Airflow's home; the environment overrides it.
    return {key: value for key, value in values.items() if key != "AIRFLOW_CONFIG"}


def common_environment(environments: list[dict[str, str]]) -> dict[str, str]:
    """Return the variables that all components have with the same value."""
    shared = reduce(lambda one, other: dict(one.items() & other.items()), environments)
    return {key: value for key, value in environments[0].items() if key in shared}


def images(settings: Mapping[str, str]) -> Manifest:
    """Return the image of all components."""
    repository, tag = repository_and_tag(settings["AIRFLOW_IMAGE"])
    digest = settings["AIRFLOW_IMAGE"].partition("@")[2]
    image = {"repository": repository, "tag": tag, "pullPolicy": settings["KUBERNETES_PULL_POLICY"]}
    pull_secret = settings["KUBERNETES_PULL_SECRET"]
    return {
        "images": {
            "airflow": image | ({"digest": digest} if digest else {}),
            "useDefaultImageForMigration": True,
            "migrationsWaitTimeout": 600,
        },
        "defaultAirflowRepository": repository,
        "defaultAirflowTag": tag,
        **({"imagePullSecrets": [{"name": pull_secret}]} if pull_secret else {}),
    }


def secrets() -> Manifest:
    """Return the names of Secrets that keep the chart from making its own."""
    return {
        "enableBuiltInSecretEnvVars": dict.fromkeys(
            (
                "AIRFLOW__CORE__FERNET_KEY",
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
                "AIRFLOW_CONN_AIRFLOW_DB",
                "AIRFLOW__API__SECRET_KEY",
                "AIRFLOW__API_AUTH__JWT_SECRET",
                "AIRFLOW__WEBSERVER__SECRET_KEY",
                "AIRFLOW__CELERY__RESULT_BACKEND",
                "AIRFLOW__CELERY__BROKER_URL",
                "AIRFLOW__ELASTICSEARCH__HOST",
                "AIRFLOW__OPENSEARCH__HOST",
            ),
            False,
        ),
        **dict.fromkeys(("fernetKeySecretName", "apiSecretKeySecretName", "jwtSecretName"), CHART_SECRET),
        "data": dict.fromkeys(("metadataSecretName", "resultBackendSecretName", "brokerUrlSecretName"), CHART_SECRET),
    }


def switched_off() -> Manifest:
    """Return the parts of the chart that manifests.py has, or that are not used."""
    return {
        "enableServiceLinks": False,
        "allowPodLaunching": False,
        "rbac": {"create": False},
        "createUserJob": {"enabled": False, "defaultUser": {"enabled": False}},
        **{name: {"enabled": False} for name in ("postgresql", "redis", "pgbouncer", "statsd", "flower", "cleanup")},
        "databaseCleanup": {"enabled": False},
    }


def component(of: Service, env: Mapping[str, str]) -> Manifest:
    """Return what every component of the chart has."""
    mounts = [
        mount | ({"mountPath": TASK_LOGS} if mount["name"] == translation.claim(translation.LOGS) else {})
        for mount in translation.shared_mounts(of)
    ]
    return {
        "args": arguments(of),
        "env": as_list(env),
        "resources": translation.resources(of),
        "labels": translation.network_labels(of),
        "serviceAccount": {"automountServiceAccountToken": False},
        "extraVolumes": [
            translation.secrets_volume(of),
            translation.scratch_volume(of),
            *translation.shared_volumes(mounts, of.settings),
            *remote_parts.log_volumes(of.name, of.settings),
        ],
        "extraVolumeMounts": [
            translation.secrets_mount(of),
            dict(translation.SCRATCH_MOUNT),
            *mounts,
            *remote_parts.log_mounts(of.name, of.settings),
        ],
    }


def arguments(of: Service) -> list[str]:
    """Return the command of a component, which the image's entrypoint runs."""
    command = [*of.service.get("entrypoint", []), *of.service.get("command", [])]
    command = [translation.in_cluster(of, str(word)) for word in command]
    match command:
        # The address of a pod is its only one: it needs no choice of a network.
        case ["sh", "/usr/local/bin/listen-on-frontend.sh", option, *rest]:
            return ["airflow", *rest, option, "0.0.0.0"]  # noqa: S104
        case ["sh", "/usr/local/bin/start.sh", *rest]:
            # The image's entrypoint knows bash, python and airflow.
            return ["bash", "-c", of.cluster.file("worker/start.sh"), "start.sh", *rest]
    return command


def components_by_key(components: Mapping[str, Manifest], cluster: Cluster) -> Manifest:
    """Return the values of each component under the chart's key."""
    of = cluster.service

    def replicated(name: str) -> Manifest:
        labels = {"component": name, "release": cluster.release}
        return {
            "replicas": of(name).replicas,
            "topologySpreadConstraints": translation.spread(labels),
            "affinity": translation.apart(labels),
            "podDisruptionBudget": {"enabled": True, "config": {"maxUnavailable": 1}},
        }

    def watched(name: str) -> Manifest:
        return {"livenessProbe": translation.liveness(of(name)), "logGroomerSidecar": {"enabled": False}}

    def stopped(name: str) -> Manifest:
        return {"terminationGracePeriodSeconds": of(name).stop_seconds}

    def after_migration(name: str) -> Manifest:
        return {"waitForMigrations": {"env": components[name]["env"]}}

    scheduler_startup = translation.liveness(of("scheduler")) | {"initialDelaySeconds": 5}
    scheduler_startup |= {"periodSeconds": 5, "failureThreshold": translation.STARTUP_SECONDS // 5}
    return {
        "migrateDatabaseJob": {**components["migrate"], "useHelmHooks": True, "applyCustomEnv": True},
        "apiServer": {
            **components["api-server"],
            **replicated("api-server"),
            **after_migration("api-server"),
            "allowPodLogReading": False,
            "apiServerConfig": cluster.file("api-server/webserver_config.py"),
            "livenessProbe": {**API_PROBE, "initialDelaySeconds": 120},
            "readinessProbe": {**API_PROBE, "initialDelaySeconds": 5, "failureThreshold": 2},
            "startupProbe": {**API_PROBE, "failureThreshold": translation.STARTUP_SECONDS // 10},
        },
        "scheduler": {
            **components["scheduler"],
            **replicated("scheduler"),
            **watched("scheduler"),
            **stopped("scheduler"),
            **after_migration("scheduler"),
            "startupProbe": scheduler_startup,
        },
        "dagProcessor": {
            "enabled": True,
            **components["dag-processor"],
            **watched("dag-processor"),
            **stopped("dag-processor"),
            **after_migration("dag-processor"),
        },
        "triggerer": {
            "enabled": True,
            **components["triggerer"],
            **replicated("triggerer"),
            **watched("triggerer"),
            **stopped("triggerer"),
            **after_migration("triggerer"),
            "persistence": {"enabled": False},
        },
        "workers": {
            "celery": {
                **components["worker"],
                **replicated("worker"),
                **watched("worker"),
                **stopped("worker"),
                # By default all old workers stop at once, before a new one is ready.
                "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "livenessProbe": {"enabled": True, **translation.liveness(of("worker"))},
                "persistence": {"enabled": False},
                # A worker has no log-in to the metadata database, and so no migration to wait for.
                "waitForMigrations": {"enabled": False},
                **keda.worker_values(cluster, components["worker"]["env"]),
            }
        },
    }
