"""The fallback image for each official image, and its build."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from ops.images import debian_base
from ops.images.build import Build, build_image, content_tag
from ops.images.dockerfile_stages import target_inputs
from ops.images.versions import read_images_env, software_version

if TYPE_CHECKING:
    from pathlib import Path

    from ops.images.progress import Reporter

# The key in compose/images.env, and the target in ops/images/airgap/Dockerfile.
FALLBACK_IMAGES = {
    "AIRFLOW_BASE_IMAGE": "airflow-base",
    "POSTGRES_IMAGE": "postgres",
    "REDIS_IMAGE": "redis",
    "GATEWAY_IMAGE": "haproxy",
    "ETCD_IMAGE": "etcd",
    "OTEL_COLLECTOR_IMAGE": "otel-collector",
    "CADVISOR_IMAGE": "cadvisor",
    "STATSD_EXPORTER_IMAGE": "statsd-exporter",
    "PROMETHEUS_IMAGE": "prometheus",
    "ALERTMANAGER_IMAGE": "alertmanager",
    "POSTGRES_EXPORTER_IMAGE": "postgres-exporter",
    "REDIS_EXPORTER_IMAGE": "redis-exporter",
}
# These are compiled from Go modules, in the version of the official image; the others are Debian's packages.
COMPILED = ("OTEL_COLLECTOR_IMAGE", "CADVISOR_IMAGE", "STATSD_EXPORTER_IMAGE")
# This image is compiled too, but is no image of the stack: a check runs it.
TOOLS = {"ACTIONLINT_VERSION": "actionlint"}
DOCKERFILE = "ops/images/airgap/Dockerfile"


def target(key: str) -> str:
    return TOOLS[key] if key in TOOLS else FALLBACK_IMAGES[key]


def reference(root: Path, key: str) -> str:
    """Return the image's name; its tag changes with the stages that its target needs, their files, base and version."""
    inputs = target_inputs(root / DOCKERFILE, target(key))
    values = [*inputs.instructions, debian_base.reference(), *version_argument(root, key).values()]
    return f"airflow-ha/airgap-{target(key)}:{content_tag(root, inputs.files, values)}"


def build(root: Path, key: str, report: Reporter) -> None:
    """Build one fallback image on the Debian base, which must be on this machine: `debian_base.build`.

    Raises:
        ChildFailedError: The build failed.
    """
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    arguments = {"DEBIAN_IMAGE": debian_base.reference(), "BUILD_DATE": today, **version_argument(root, key)}
    dockerfile = root / DOCKERFILE
    build_image(Build(reference(root, key), dockerfile, dockerfile.parent, arguments, target(key)), report)


def version_argument(root: Path, key: str) -> dict[str, str]:
    """Return the build argument VERSION of a compiled image; an empty dictionary for the others."""
    return {"VERSION": software_version(read_images_env(root)[key])} if key in (*COMPILED, *TOOLS) else {}
