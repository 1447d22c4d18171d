"""Which stand-in takes the place of which official image, and how it is built."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from ops.images import debian_base
from ops.images.build import build_image, content_tag
from ops.images.versions import read_images_env, software_version

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# The key in compose/images.env, and the folder with the stand-in's Dockerfile.
STAND_INS = {
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
# Compiled from Go modules, in the version of the official image; the others are as new as Debian's packages.
COMPILED = ("OTEL_COLLECTOR_IMAGE", "CADVISOR_IMAGE", "STATSD_EXPORTER_IMAGE")
# Compiled likewise, but not of the stack: what a check runs.
TOOLS = {"ACTIONLINT_VERSION": "actionlint"}


def reference(root: Path, key: str) -> str:
    """The stand-in's name; its tag changes with its Dockerfile, the files beside it, its base and its version."""
    name = _folder(key)
    tag = content_tag(
        root, [root / "ops/images/airgap" / name], [debian_base.reference(), *_version(root, key).values()]
    )
    return f"airflow-ha/airgap-{name}:{tag}"


def build(root: Path, key: str, report: Callable[[str], None]) -> None:
    """Builds one stand-in; its Debian base must be there (`debian.build`)."""
    folder = root / "ops/images/airgap" / _folder(key)
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    arguments = {"DEBIAN_IMAGE": debian_base.reference(), "BUILD_DATE": today, **_version(root, key)}
    build_image(reference(root, key), folder / "Dockerfile", folder, arguments, report)


def _folder(key: str) -> str:
    return TOOLS[key] if key in TOOLS else STAND_INS[key]


def _version(root: Path, key: str) -> dict[str, str]:
    return {"VERSION": software_version(read_images_env(root)[key])} if key in (*COMPILED, *TOOLS) else {}
