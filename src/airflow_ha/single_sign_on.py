"""Log-in of users at an OpenID Connect provider: the settings of FAB for compose/api-server/webserver_config.py.

Tasks, `./ops/stack` and robots do not log in there: FAB's `/auth/token` takes a local password with either log-in.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.fab.auth_manager.security_manager.override import FabAirflowSecurityManagerOverride
from flask_appbuilder.const import AUTH_OAUTH

if TYPE_CHECKING:
    from pathlib import Path

PROVIDER: Final = "sso"
"""FAB's name of the provider, also in its callback, /auth/oauth-authorized/sso. It must be no name that FAB knows."""
LOCAL: Final = frozenset({"admin", "monitoring"})
"""The stack's own accounts, which no user of a provider may take over by a user of the same name there."""
NO_ROLE: Final = "Public"


class SecurityManager(FabAirflowSecurityManagerOverride):  # type: ignore[misc]
    """FAB's security manager, for users of the provider with a mapped group only."""

    def get_oauth_user_info(self, provider: str, resp: dict[str, Any]) -> dict[str, Any]:
        """Return what the provider knows about a user; without a name where the log-in is refused."""
        return admitted(super().get_oauth_user_info(provider, resp), self.auth_roles_mapping)


def admitted(user: dict[str, Any], roles: dict[str, list[str]]) -> dict[str, Any]:
    """Return a user of the provider, without a name if no group has a role or the name is the stack's own."""
    if user.get("username") in LOCAL or not set(user.get("role_keys") or []) & roles.keys():
        return {**user, "username": ""}
    return user


def settings(file: Path) -> dict[str, Any]:
    """Return FAB's settings; empty without a provider, for log-ins with a local password.

    Args:
        file: Of ops/single_sign_on.py.
    """
    chosen = json.loads(file.read_text()) if file.exists() else {}
    if not chosen:
        return {}
    client = {"scope": chosen["scopes"], "code_challenge_method": "S256", "timeout": chosen["timeout"]}
    if chosen["authority"]:
        client["verify"] = chosen["authority"]
    return {
        "AUTH_TYPE": AUTH_OAUTH,
        "OAUTH_PROVIDERS": [
            {
                "name": PROVIDER,
                "icon": "fa-key",
                "token_key": "access_token",
                "remote_app": {
                    "client_id": chosen["client_id"],
                    "client_secret": chosen["client_secret"],
                    "server_metadata_url": f"{chosen['issuer'].rstrip('/')}/.well-known/openid-configuration",
                    "client_kwargs": client,
                },
            }
        ],
        "AUTH_USER_REGISTRATION": True,
        "AUTH_USER_REGISTRATION_ROLE": NO_ROLE,
        "AUTH_ROLES_MAPPING": chosen["roles"],
        "AUTH_ROLES_SYNC_AT_LOGIN": True,
        "SECURITY_MANAGER_CLASS": SecurityManager,
    }
