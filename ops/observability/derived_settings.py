"""Settings that follow from others: from the profiles, their images, and the secrets and certificates that exist."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ops import external_data, redis_users, secrets_backend, settings_file
from ops.notification_secrets import stub_is_wanted
from ops.services import ALERTMANAGERS, BACKUP, BACKUP_PROFILES, OPTIONAL, SLACK_STUB_PROFILE

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


def derive_settings(settings: dict[str, str], images: Collection[str], secrets: Collection[str]) -> None:
    """Set the profiles, images and addresses that follow from the chosen profiles.

    Args:
        settings: Of .env; changed in place.
        images: The optional images that exist.
        secrets: The optional secrets that exist.
    """
    chosen = settings_file.profiles(settings)
    on = "observability" in chosen
    extra = [published.profile for published in OPTIONAL if on and published.image in images]
    stub = [SLACK_STUB_PROFILE] if on and stub_is_wanted(secrets) else []
    backup = [profile for tier, profile in BACKUP_PROFILES.items() if BACKUP in chosen and tier in chosen]
    settings["COMPOSE_PROFILES"] = ",".join([*chosen, *extra, *stub, *backup])
    for published in OPTIONAL:
        if published.profile not in extra:
            settings[published.image] = ""
    settings["TRACES"] = str(on)
    settings["OTLP_ENDPOINT"] = "http://otel-collector:4318" if on else ""
    # Workers do not reach the Alertmanagers themselves: compose/gateway/haproxy.cfg.
    settings["ALERTMANAGERS"] = ",".join(f"http://gateway:8081/{name}" for name in ALERTMANAGERS) if on else ""


def derive_links(settings: dict[str, str], certificates: Mapping[str, str]) -> None:
    """Set how clients log in to Postgres and Redis, and the class of the secrets backend.

    Args:
        settings: Of .env; changed in place.
        certificates: The text of each certificate file of the operator that exists.
    """
    # DATA_TIER selects the nodes that Prometheus queries through the exporters: compose/prometheus/targets.
    settings["DATA_TIER"] = "data-ha" if "data-ha" in settings_file.profiles(settings) else "data"
    settings["REDIS_EXPORTER_USER"] = (
        redis_users.EXPORTER
        if settings_file.has_own_data(settings)
        else external_data.redis_log_in(redis_users.EXPORTER, settings)[0]
    )
    settings |= external_data.derived(settings, certificates)
    settings["SECRETS_BACKEND_CLASS"] = secrets_backend.CLASSES.get(secrets_backend.name(settings), "")
