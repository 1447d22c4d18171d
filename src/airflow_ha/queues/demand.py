"""How many task instances have or wait for a slot of a worker: the figure by which workers are scaled.

`python -m airflow_ha.queues.demand QUEUES` prints it as JSON, in a container with the metadata database's URL: Docker's
autoscaling reads it there (ops/autoscaling). On Kubernetes KEDA runs `workers_query`. Both count the same rows.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Final

QUEUE: Final = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
SECONDS: Final = 3
"""Timeout of the connection, and of the statement."""


def rows(queues: str) -> str:
    """Return the FROM and WHERE clauses of the task instances that are queued or run in the queues.

    Args:
        queues: Names, separated by commas, as in WORKER_QUEUES.

    Raises:
        ValueError: A name has a character that no queue's name has.
    """
    names = queues.split(",")
    if not all(map(QUEUE.fullmatch, names)):
        raise ValueError(f"cannot count the tasks of {queues!r}: it is not a list of queues")
    listed = ", ".join(f"'{name}'" for name in names)
    return f"FROM task_instance WHERE state IN ('queued', 'running') AND queue IN ({listed})"


def count_query(queues: str) -> str:
    """Return the statement for the numbers of queued and of running task instances."""
    counts = ", ".join(f"count(*) FILTER (WHERE state = '{state}')" for state in ("queued", "running"))
    return f"SELECT {counts} {rows(queues)}"


def workers_query(queues: str, slots: int) -> str:
    """Return the statement for the number of workers that have a slot for each of these task instances.

    Args:
        queues: The queues that a worker consumes, separated by commas.
        slots: The slots of a worker.
    """
    return f"SELECT ceil(count(*)::decimal / {slots}) {rows(queues)}"


def main() -> None:
    """Print the numbers of queued and running task instances of the queues in the first argument."""
    import psycopg2  # slow, and the statements need no driver

    from airflow_ha.health.dependencies import libpq_url
    from airflow_ha.secret_masking import SECRETS

    url = libpq_url((SECRETS / "sql_alchemy_conn").read_text().strip())
    options = f"-c application_name=autoscaling -c statement_timeout={SECONDS}s"
    try:
        connection = psycopg2.connect(url, connect_timeout=SECONDS, options=options)
        try:
            with connection.cursor() as cursor:
                cursor.execute(count_query(sys.argv[1]))
                queued, running = cursor.fetchone() or (0, 0)
        finally:
            connection.close()
    except psycopg2.Error as error:
        sys.exit(" ".join(str(error).split()))
    print(json.dumps({"queued": queued, "running": running}))


if __name__ == "__main__":
    main()
