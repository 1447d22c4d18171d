"""Settings of a Kubernetes cluster: those of compose/.env, and a few of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ops import container_limits, external_data, inner_tls, setting_checks, settings_file
from ops.errors import StackError
from ops.kubernetes import remote_parts
from ops.observability.derived_settings import derive_links, derive_settings
from ops.project import Project
from ops.services import BACKUP, OPTIONAL
from ops.setting_checks import Kind, matching

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

FOLDER: Final = "kubernetes"
"""The folder of the settings and secrets in compose/, unless STACK_STATE_DIR names another one."""

NAME: Final = matching(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", "a name of Kubernetes, such as airflow", is_required=True)
OPTIONAL_NAME: Final = matching(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", "a name of Kubernetes")
SIZE: Final = matching(r"[1-9]\d*(Mi|Gi|Ti)", "a size such as 20Gi", is_required=True)
IMAGE: Final = matching(
    r"[\w.-]+(:\d+)?(/[\w./-]+)*:[\w.-]+(@sha256:[0-9a-f]{64})?", "an image with its tag", is_required=True
)

OWN: Final[dict[str, tuple[str, Kind]]] = {
    "KUBERNETES_NAMESPACE": ("airflow", NAME),
    "KUBERNETES_RELEASE": ("airflow", NAME),
    "KUBERNETES_CONTEXT": ("", matching(r"\S+", "a context of your kubeconfig")),
    "KUBERNETES_PULL_POLICY": ("IfNotPresent", matching("Always|IfNotPresent|Never", "Always, IfNotPresent or Never")),
    "KUBERNETES_PULL_SECRET": ("", OPTIONAL_NAME),
    "KUBERNETES_STORAGE_CLASS": ("", OPTIONAL_NAME),
    "KUBERNETES_SHARED_STORAGE_CLASS": ("", OPTIONAL_NAME),
    "KUBERNETES_SHARED_SIZE": ("20Gi", SIZE),
    "KUBERNETES_POSTGRES_SIZE": ("20Gi", SIZE),
    "KUBERNETES_REDIS_SIZE": ("2Gi", SIZE),
    **remote_parts.SETTINGS,
    "KUBERNETES_NODE_TOLERATION_SECONDS": ("30", setting_checks.integer(0, 3600, "a number of seconds, 0 to 3600")),
    "KUBERNETES_MONITORING_NAMESPACE": ("monitoring", NAME),
    "KUBERNETES_KEDA_NAMESPACE": ("keda", NAME),
    "KUBERNETES_CLUSTER_DOMAIN": ("cluster.local", matching(r"[a-z0-9.-]+", "a domain", is_required=True)),
    "AIRFLOW_IMAGE": ("", IMAGE),
}
"""The default and the accepted values of each setting that only Kubernetes has, in the order of README.md."""

DEFAULT_PROFILES: Final = ("flower", "observability")
"""Postgres and Redis are the operator's own by default."""


def kubernetes_project(project: Project) -> Project:
    """Return the project with its state for Kubernetes: beside the state of Docker, unless STACK_STATE_DIR names it."""
    return Project(project.root, project.compose_directory / FOLDER) if project.is_default else project


def read(project: Project, given: Sequence[str] = ()) -> dict[str, str]:
    """Return the settings of .env over the defaults, with the given ones over both.

    Args:
        project: The project with the state for Kubernetes.
        given: Settings as KEY=VALUE.

    Raises:
        StackError: A setting is not valid.
    """
    shown = project.shown(project.env_file)
    preset = defaults(project)
    settings = preset | settings_file.parse(project.env_file, shown) | dict(map(_assignment, given))
    check(project, settings, preset, shown)
    return settings


def chosen(project: Project, given: Sequence[str]) -> dict[str, str]:
    """Return the settings that .env keeps: its own with the given ones over them."""
    return settings_file.parse(project.env_file, project.shown(project.env_file)) | dict(map(_assignment, given))


def defaults(project: Project) -> dict[str, str]:
    """Return the settings of a first installation."""
    images = settings_file.parse(project.compose_directory / "images.env", "compose/images.env")
    return {
        **images,
        **settings_file.defaults(project),
        "COMPOSE_PROFILES": ",".join(DEFAULT_PROFILES),
        **{key: default for key, (default, _) in OWN.items()},
    }


def check(project: Project, settings: Mapping[str, str], preset: Collection[str], shown: str) -> None:
    """Refuse settings that are not valid."""
    limits = container_limits.defaults(project.compose_directory)
    problems = setting_checks.problems(settings, limits, preset)
    problems += [
        setting_checks.Problem(key, "the value is not valid", f"set {key} to {kind.takes}")
        for key, (_, kind) in OWN.items()
        if not (kind.accepts(settings[key]) if settings[key] else not kind.is_required)
    ]
    problems += remote_parts.problems(settings)
    if problems:
        raise settings_file.refusal(settings, shown, {}, problems)
    profiles = settings_file.profiles(settings)
    settings_file.check_profiles(profiles, shown)
    if "data-ha" in profiles and not settings.get("PATRONI_IMAGE"):
        raise StackError(
            "cannot use profile data-ha: PATRONI_IMAGE is not set",
            where=shown,
            hint="push the image that ./ops/stack up --ha builds to your registry, and set PATRONI_IMAGE to its name",
        )
    if inner_tls.is_on(settings):
        raise StackError(
            "cannot use TLS=on on Kubernetes: its certificates are for services on Docker",
            where=shown,
            hint="delete TLS, and use your mesh, or Postgres and Redis of your own with TLS",
        )
    if BACKUP in profiles:
        raise StackError(
            f"cannot use profile {BACKUP} on Kubernetes: its services run on Docker only",
            where=shown,
            hint=f"leave out {BACKUP}, and use the backups of your Postgres and of your storage",
        )


def derived(project: Project, settings: Mapping[str, str]) -> dict[str, str]:
    """Return the settings with those that follow from the profiles and the certificates."""
    complete = dict(settings)
    # Grafana, Jaeger and the Slack stub are not installed: the cluster's own have the dashboards and the messages.
    derive_settings(complete, images=(), secrets=("slack_webhook_url",))
    derive_links(complete, external_data.files(project, complete))
    for published in OPTIONAL:
        complete.pop(published.image, None)
    return complete


def _assignment(text: str) -> tuple[str, str]:
    setting = settings_file.assignment(text)
    if setting is None:
        raise StackError(f"cannot use the setting {text!r}: it is not KEY=VALUE", where="--set", hint="write KEY=VALUE")
    return setting
