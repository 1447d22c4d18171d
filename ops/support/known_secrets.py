"""Every secret value of a stack that this user can know: files, settings, containers, Connections and Variables."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow_ha.secret_masking import PASSWORD_NAME, passwords_of_url, secrets_in
from airflow_ha.stored_secrets import is_secret
from ops import (
    compose,
    compose_override,
    container_limits,
    private_authority,
    rotation_state,
    setting_checks,
    settings_file,
)
from ops.errors import FAILURE, StackError
from ops.support.redaction import REMOVED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ops.compose import Instance
    from ops.project import Project

FERNET_HOLDERS: Final = ("scheduler", "dag-processor", "triggerer", "api-server", "execution-api")
"""The services that can decrypt Connections and Variables; workers have no key."""
QUERY_SECONDS: Final = 120.0
"""Airflow takes 5 s of CPU to start, which are a minute under high load."""
MOUNTED: Final = "/run/secrets/"
"""A variable with a path there holds no secret itself."""


def in_files(project: Project) -> set[str]:
    """Return the content of every secret file of the operator.

    Raises:
        StackError: A file cannot be read.
    """
    folder = project.secrets
    try:
        folders = (folder, private_authority.folder(project))
        paths = [path for each in folders for path in each.glob("*")]
        files = [path for path in paths if path.is_file() and path.name != ".names"]
        files += rotation_state.kept_files(project)
        return {secret for path in files for secret in secrets_in(path.read_text(encoding="utf-8"))} - {""}
    except (OSError, UnicodeDecodeError) as error:
        raise StackError(
            f"cannot read the secrets, so cannot remove them: {error}",
            where=project.shown(folder),
            hint="run this as the user who ran ./ops/stack up first",
        ) from error


def shown_settings(project: Project) -> tuple[dict[str, str], set[str]]:
    """Return the settings of .env that may be shown, and the values that may not.

    Shown are the project's own settings, without what follows `?` in a URL. Any other name may hold a secret.

    Raises:
        StackError: .env cannot be read.
    """
    known = {
        *setting_checks.KINDS,
        *setting_checks.WRITTEN_BY_UP,
        *container_limits.defaults(project.compose_directory),
        *(f"{name.upper().replace('-', '_')}_REPLICAS" for name in compose_override.own_workers(project)),
    }
    shown, secret = {}, set()
    for key, value in settings_file.parse(project.env_file, project.shown(project.env_file)).items():
        if key in known:
            shown[key], _, hidden = value.partition("?")
            secret |= {hidden, *passwords_of_url(value)} - {""}
        else:
            shown[key] = REMOVED if value else ""
            if is_secret(key, value):
                secret.add(value)
    return shown, secret


def in_compose(project: Project) -> set[str]:
    """Return the secrets that the compose model takes from files of the operator or from the environment.

    Raises:
        StackError: The model is not valid, or a file cannot be read.
    """
    found = set()
    for name, secret in compose.config(project, "--profile=*").get("secrets", {}).items():
        path = Path(secret.get("file", ""))
        if "file" not in secret:
            found.add(secret.get("content") or os.environ.get(secret.get("environment", ""), ""))
        elif project.secrets not in path.parents:
            try:
                found.add(path.read_text(encoding="utf-8").strip())
            except (OSError, UnicodeDecodeError) as error:
                raise StackError(
                    f"cannot read the secret {name}, so cannot remove it: {error}", where=str(path), code=FAILURE
                ) from error
    return found - {""}


def in_containers(containers: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return the values of variables with a sensitive name, from what `docker inspect` prints."""
    variables = (entry.partition("=") for container in containers for entry in container["Config"].get("Env") or [])
    return {value for name, _, value in variables if PASSWORD_NAME.search(name) and value and MOUNTED not in value}


def stored(instances: Mapping[str, list[Instance]]) -> set[str]:
    """Return the secrets in Airflow's Connections and Variables.

    Raises:
        StackError: No container can read them.
    """
    running = compose.in_state(instances, "running", FERNET_HOLDERS)
    reason = "no component of Airflow with the Fernet key runs"
    for instance in running:
        command = ["docker", "exec", instance.id, "python", "-m", "airflow_ha.stored_secrets"]
        try:
            result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=QUERY_SECONDS)
            return set(json.loads(result.stdout.strip().splitlines()[-1]))
        except (subprocess.SubprocessError, ValueError, IndexError) as error:
            # The class only: the error may quote the output.
            reason = f"container {instance.id}: {type(error).__name__}"
    raise StackError(f"cannot read the secrets in Connections and Variables: {reason}", code=FAILURE)
