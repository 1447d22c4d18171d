"""Facts about the images of a version, read in a container of each that changes nothing."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ops.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Mapping

SCRIPT: Final = Path(__file__).with_name("facts_in_image.py")
SECONDS: Final = 600.0
CLIENT_SECONDS: Final = 30.0
"""Docker's time to start and remove a container."""
"""Timeout for one image. A thousand DAG files take a minute or two."""
NO_DATABASE: Final = "no-access@127.0.0.1:1/none"
ENVIRONMENT: Final = {
    "HOME": "/tmp",  # noqa: S108  of the container
    "AIRFLOW_CONFIG": "/tmp/airflow.cfg",  # noqa: S108
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{NO_DATABASE}",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": f"postgresql+psycopg_async://{NO_DATABASE}",
}
ISOLATED: Final = ("--rm", "--network=none", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--memory=1g")


@dataclass(frozen=True)
class AirflowFacts:
    """Facts about an Airflow image.

    Attributes:
        version: Airflow's version.
        heads: The last migrations, by the table that records them.
        known: All migrations, by table.
        import_errors: The error of each DAG file that does not import, by its path in the container.
    """

    version: str
    heads: Mapping[str, list[str]]
    known: Mapping[str, list[str]]
    import_errors: Mapping[str, str]


def airflow_facts(image: str, dags: Path, plugins: Path) -> AirflowFacts:
    """Return the facts about an Airflow image, with the import errors of a folder of DAG files in it.

    Raises:
        StackError: The image does not report them.
    """
    mounts = (f"--volume={dags}:/opt/airflow/dags:ro", f"--volume={plugins}:/opt/airflow/plugins:ro")
    settings = (f"--env={key}={value}" for key, value in ENVIRONMENT.items())
    # The limit is inside, since a client that is killed leaves its container running.
    limited = ("--entrypoint=timeout", image, "--kill-after=5", f"{SECONDS:.0f}", "python", "-")
    command = ["docker", "run", "--interactive", *ISOLATED, *mounts, *settings, *limited]
    try:
        result = subprocess.run(
            command,
            input=SCRIPT.read_text(encoding="utf-8"),
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS + CLIENT_SECONDS,
        )
        facts: dict[str, Any] = json.loads(result.stdout)
    except (ValueError, subprocess.TimeoutExpired) as error:
        reason = str(error) if isinstance(error, subprocess.TimeoutExpired) else result.stderr.strip()[-500:]
        raise StackError(
            f"cannot check the Airflow image: {reason}", where=image, hint="run ./ops/stack status for import errors"
        ) from error
    migrations = facts["migrations"]
    return AirflowFacts(
        version=facts["version"],
        heads={table: each["heads"] for table, each in migrations.items()},
        known={table: each["known"] for table, each in migrations.items()},
        import_errors=facts["import_errors"],
    )


def server_version(image: str, program: str) -> tuple[int, ...]:
    """Return the version of `postgres` or `redis-server` in an image.

    Raises:
        StackError: The image does not report it.
    """
    limited = ["docker", "run", *ISOLATED, "--entrypoint=timeout", image, f"{CLIENT_SECONDS:.0f}", program, "--version"]
    result = subprocess.run(limited, capture_output=True, text=True, check=False)
    match = re.search(r"(?:PostgreSQL\) |v=)(\d+(?:\.\d+)*)", result.stdout)
    if not match:
        raise StackError(
            f"cannot read the version of {program}: {result.stderr.strip()[-500:]}",
            where=image,
            hint=f"run docker run --rm --entrypoint {program} {image} --version",
        )
    return tuple(map(int, match[1].split(".")))
