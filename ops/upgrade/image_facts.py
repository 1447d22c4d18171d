"""Facts about the images of a version, read in a container of each that changes nothing."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ops import time_limits
from ops.child_process import no_answer, run_limited
from ops.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Mapping

SCRIPT: Final = Path(__file__).with_name("facts_in_image.py")
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
    limited = ("--entrypoint=timeout", image, "--kill-after=5", f"{time_limits.COMMAND:.0f}", "python", "-")
    command = ["docker", "run", "--interactive", *ISOLATED, *mounts, *settings, *limited]
    what, seconds = "check the Airflow image", time_limits.COMMAND + time_limits.ENDING
    result = run_limited(command, seconds, what, stdin=SCRIPT.read_text(encoding="utf-8"))
    if result.returncode == time_limits.EXCEEDED:
        raise no_answer(what, time_limits.COMMAND)
    try:
        facts: dict[str, Any] = json.loads(result.stdout)
    except ValueError as error:
        raise StackError(
            f"cannot {what}: {result.stderr.strip()[-500:]}",
            where=image,
            hint="run ./ops/stack status for import errors",
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
    command = ["docker", "run", *ISOLATED, f"--entrypoint={program}", image, "--version"]
    result = run_limited(command, time_limits.ENDING, f"read the version of {program}")
    match = re.search(r"(?:PostgreSQL\) |v=)(\d+(?:\.\d+)*)", result.stdout)
    if not match:
        raise StackError(
            f"cannot read the version of {program}: {result.stderr.strip()[-500:]}",
            where=image,
            hint=f"run docker run --rm --entrypoint {program} {image} --version",
        )
    return tuple(map(int, match[1].split(".")))
