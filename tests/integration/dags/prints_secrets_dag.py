"""A task that prints what it must not: passwords of the platform's settings and files, and of a Connection."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from airflow.sdk import Connection, conf, dag, task


@dag(schedule=None, default_args={"retries": 0})
def prints_secrets() -> None:
    @task
    def print_all() -> None:
        connection: Any = Connection.get("prints_secrets")
        texts = [
            connection.get_uri(),
            connection.password,
            json.dumps({"inner": connection.password}),
            *(file.read_text() for file in Path("/run/secrets").iterdir()),
            *(conf.get("celery", name) for name in ("broker_url", "result_backend")),
            conf.get("celery_broker_transport_options", "sentinel_kwargs"),
        ]
        for text in texts:
            print("printed:", text)
            logging.getLogger(__name__).info("logged: %s", text)

    print_all()


prints_secrets()
