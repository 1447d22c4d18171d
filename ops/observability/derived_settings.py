"""Settings that follow from the profiles `observability` and `backup`, their images and the secrets that exist."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ops import settings_file
from ops.notification_secrets import stub_is_wanted
from ops.services import ALERTMANAGERS, BACKUP, BACKUP_PROFILES, OPTIONAL, SLACK_STUB_PROFILE

if TYPE_CHECKING:
    from collections.abc import Collection


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
