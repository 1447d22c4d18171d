"""Single sign-on at an OpenID Connect provider: what the API servers mount of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from ops import operator_files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ops.project import Project

SECRET: Final = "oidc_client_secret"  # noqa: S105 (a name)
CA: Final = "oidc_ca.pem"
READER: Final = "single-sign-on"
"""The folder of the mounted files under secrets/mounted/."""
REQUIRED: Final = ("OIDC_CLIENT_ID", "OIDC_ROLES")
DEFAULT_SCOPES: Final = "openid email profile groups"
TIMEOUT: Final = 5
"""Seconds for an answer of the provider."""


def is_on(settings: Mapping[str, str]) -> bool:
    """Return whether users log in at a provider."""
    return bool(settings.get("OIDC_ISSUER"))


def files(project: Project) -> dict[str, str]:
    """Return the text of each file of the operator about the provider that exists."""
    return operator_files.read(project, (SECRET, CA))


def check(project: Project, settings: Mapping[str, str], check_file: Callable[[str], None]) -> None:
    """Refuse a provider whose settings or client secret are missing.

    Args:
        project: The stack.
        settings: Of .env.
        check_file: Refuses a secret of one line that is not valid, by its name.

    Raises:
        StackError: The error names the setting or the file.
    """
    if not is_on(settings):
        return
    purpose = "use single sign-on"
    operator_files.require_settings(project, settings, REQUIRED, purpose, "delete OIDC_ISSUER")
    operator_files.require_secret(project, SECRET, purpose)
    check_file(SECRET)


def roles(text: str) -> dict[str, list[str]]:
    """Return Airflow's roles by the provider's group, of `group=Role,group=Role`."""
    by_group: dict[str, list[str]] = {}
    for pair in text.split(","):
        group, _, role = pair.partition("=")
        by_group.setdefault(group.strip(), []).append(role.strip())
    return by_group


def mounted_files(settings: Mapping[str, str], present: Mapping[str, str]) -> dict[str, str]:
    """Return the text of each file about the provider that containers mount, by its path under secrets/mounted/."""
    if not is_on(settings):
        return {f"{READER}/oidc.json": "{}", f"{READER}/{CA}": ""}
    chosen = {
        "issuer": settings["OIDC_ISSUER"],
        "client_id": settings["OIDC_CLIENT_ID"],
        "client_secret": present[SECRET],
        "scopes": settings.get("OIDC_SCOPES") or DEFAULT_SCOPES,
        "roles": roles(settings["OIDC_ROLES"]),
        "authority": f"/run/secrets/{CA}" if CA in present else "",
        "timeout": TIMEOUT,
    }
    return {f"{READER}/oidc.json": json.dumps(chosen), f"{READER}/{CA}": present.get(CA, "")}
