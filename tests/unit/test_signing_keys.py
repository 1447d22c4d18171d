"""What runs DAG code in the DAG processor and the triggerer works without the keys that sign tokens."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.processes

SERVE = """
import json
from airflow.models import Connection, Variable
from airflow.utils.db import initdb
from airflow.utils.session import create_session
initdb()
with create_session() as session:
    session.add(Connection(conn_id="warehouse", conn_type="http", password="pass-word"))
    Variable.set("limit", "seven", session=session)
from airflow.api_fastapi.execution_api.app import InProcessExecutionAPI
from airflow.sdk.api.client import Client
client = Client(base_url=None, token="", dry_run=True, transport=InProcessExecutionAPI().transport)
client.base_url = "http://in-process.invalid./"
print(json.dumps([client.connections.get("warehouse").password, client.variables.get("limit").value]))
"""


def test_the_execution_api_inside_a_process_reads_no_signing_key(tmp_path):
    unreadable = f"cat {tmp_path}/no-such-secret"  # Airflow raises an error when it reads such a setting
    process = subprocess.run(
        [sys.executable, "-c", SERVE],
        env={
            **os.environ,
            "AIRFLOW_HOME": str(tmp_path),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
            "AIRFLOW__CORE__FERNET_KEY": "A" * 43 + "=",
            "AIRFLOW__API_AUTH__JWT_SECRET_CMD": unreadable,
            "AIRFLOW__API__SECRET_KEY_CMD": unreadable,
        },
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    assert json.loads(process.stdout.splitlines()[-1]) == ["pass-word", "seven"]
