"""A task that prints what it must not: passwords of the platform's settings and files, and of a Connection."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow.sdk import Connection, conf, dag, task


def readable(read: Callable[[], str]) -> list[str]:
    """Return what a task reads, or nothing where it is refused: tasks may not read their worker's log-ins."""
    try:
        return [read()]
    except Exception:  # of several modules: a configuration that cannot be read has its own in each
        return []


@dag(schedule=None, default_args={"retries": 0})
def prints_secrets() -> None:
    @task
    def print_all() -> None:
        connection: Any = Connection.get("prints_secrets")
        texts = [
            connection.get_uri(),
            connection.password,
            json.dumps({"inner": connection.password}),
            *(text for file in Path("/run/secrets").iterdir() for text in readable(file.read_text)),
            *readable(lambda: conf.get("celery", "broker_url")),
            *readable(lambda: conf.get("celery", "result_backend")),
            *readable(lambda: conf.get("celery_broker_transport_options", "sentinel_kwargs")),
        ]
        for text in texts:
            print("printed:", text)
            logging.getLogger(__name__).info("logged: %s", text)

    print_all()


prints_secrets()
