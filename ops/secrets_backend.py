"""The backend that servers ask for Connections and Variables before the database: Vault, OpenBao or AWS.

Only the Execution API and the triggerer have the log-in: tasks get Connections and Variables from the Execution API.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from ops import operator_files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ops.project import Project

VAULT: Final = "vault"
SECRETS_MANAGER: Final = "aws-secrets-manager"
PARAMETER_STORE: Final = "aws-parameter-store"
CLASSES: Final = {
    VAULT: "airflow.providers.hashicorp.secrets.vault.VaultBackend",
    SECRETS_MANAGER: "airflow.providers.amazon.aws.secrets.secrets_manager.SecretsManagerBackend",
    PARAMETER_STORE: "airflow.providers.amazon.aws.secrets.systems_manager.SystemsManagerParameterStoreBackend",
}
READER: Final = "secrets-backend"
"""The folder of the mounted files under secrets/mounted/."""
ROLE_ID: Final = "vault_role_id"
SECRET_ID: Final = "vault_secret_id"  # noqa: S105 (a name)
CA: Final = "vault_ca.pem"
AWS_KEY: Final = "secrets_aws_key"
AWS_KEY_SECRET: Final = "secrets_aws_key_secret"  # noqa: S105 (a name)
REQUIRED: Final = {VAULT: ("VAULT_ADDR",), SECRETS_MANAGER: ("SECRETS_AWS_REGION",)}
REQUIRED_FILES: Final = {VAULT: (ROLE_ID, SECRET_ID)}
DEFAULT_PREFIX: Final = "airflow"
TIMEOUT: Final = 3
"""Seconds for an answer of Vault: the Execution API waits in one of its 40 threads."""


def name(settings: Mapping[str, str]) -> str:
    """Return the backend that is chosen; empty for none."""
    return settings.get("SECRETS_BACKEND", "")


def files(project: Project) -> dict[str, str]:
    """Return the text of each file of the operator about a backend that exists."""
    return operator_files.read(project, (ROLE_ID, SECRET_ID, CA, AWS_KEY, AWS_KEY_SECRET))


def check(project: Project, settings: Mapping[str, str], check_file: Callable[[str], None]) -> None:
    """Refuse a backend whose settings or log-in are missing.

    Args:
        project: The stack.
        settings: Of .env.
        check_file: Refuses a secret of one line that is not valid, by its name.

    Raises:
        StackError: The error names the setting or the file.
    """
    if not (chosen := name(settings)):
        return
    purpose = f"use the secrets backend {chosen}"
    required = REQUIRED.get(chosen, REQUIRED[SECRETS_MANAGER])
    operator_files.require_settings(project, settings, required, purpose, "delete SECRETS_BACKEND")
    present = files(project)
    pair = (AWS_KEY, AWS_KEY_SECRET) if chosen != VAULT and {AWS_KEY, AWS_KEY_SECRET} & present.keys() else ()
    for secret in REQUIRED_FILES.get(chosen, pair):
        operator_files.require_secret(project, secret, purpose)
        check_file(secret)


def arguments(settings: Mapping[str, str], present: Mapping[str, str]) -> dict[str, object]:
    """Return `[secrets] backend_kwargs`; empty without a backend. Airflow reads no settings of its own from it.

    Args:
        settings: Of .env.
        present: Of files().
    """
    chosen, prefix = name(settings), settings.get("SECRETS_PREFIX") or DEFAULT_PREFIX
    if chosen == VAULT:
        return {
            "url": settings["VAULT_ADDR"],
            "mount_point": prefix,
            "connections_path": "connections",
            "variables_path": "variables",
            "config_path": None,
            "auth_type": "approle",
            "role_id": present[ROLE_ID],
            "secret_id": present[SECRET_ID],
            "timeout": TIMEOUT,
            **({"namespace": settings["VAULT_NAMESPACE"]} if settings.get("VAULT_NAMESPACE") else {}),
            **({"verify": f"/run/secrets/{CA}"} if CA in present else {}),
        }
    if not chosen:
        return {}
    root = f"/{prefix}" if chosen == PARAMETER_STORE else prefix
    # Without a key the machine's own role counts, as boto3 finds it.
    key = {"aws_access_key_id": AWS_KEY, "aws_secret_access_key": AWS_KEY_SECRET}
    log_in = {argument: present[file] for argument, file in key.items() if file in present}
    return {
        "connections_prefix": f"{root}/connections",
        "variables_prefix": f"{root}/variables",
        "config_prefix": None,
        "region_name": settings["SECRETS_AWS_REGION"],
        **({"endpoint_url": settings["SECRETS_AWS_ENDPOINT"]} if settings.get("SECRETS_AWS_ENDPOINT") else {}),
        **log_in,
    }


def mounted_files(settings: Mapping[str, str], present: Mapping[str, str]) -> dict[str, str]:
    """Return the text of each file about the backend that containers mount, by its path under secrets/mounted/."""
    has_authority = name(settings) == VAULT and CA in present
    return {
        f"{READER}/secrets_backend.json": json.dumps(arguments(settings, present)),
        f"{READER}/{CA}": present[CA] if has_authority else "",
    }
