"""A DAG file and tasks that use Airflow's data; test_trust_boundaries_roles.py compares the outcomes with its table."""

import json
from datetime import UTC, datetime
from pathlib import Path

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Context, dag, task

LOGS = Path("/opt/airflow/logs")
SECRETS = Path("/run/secrets")
NAME = "tests_access"
DEFAULTS = {"owner": "tests", "retries": 0}
TABLES = {
    "read DAGs, runs and XComs": ("SELECT", "dag_code", "dag_run", "xcom"),
    "trigger and clear runs": ("INSERT", "dag_run", "task_instance"),
    "pause DAGs": ("UPDATE", "dag"),
    "change XComs": ("UPDATE", "xcom"),
    "read Variables": ("SELECT", "variable"),
    "write Variables": ("INSERT", "variable"),
    "read Connections": ("SELECT", "connection"),
    "write Connections": ("INSERT", "connection"),
    "change pools": ("UPDATE", "slot_pool"),
    "manage users and roles": ("INSERT", "ab_user", "ab_role", "ab_user_role"),
    "read the audit log": ("SELECT", "log"),
}
"""The right and the tables of the metadata database that each kind of access needs."""


def parsed_with() -> list[str]:
    """Return what the process that parses this file can access; nothing in a worker, which has no database."""
    import psycopg2

    secret, accessible = SECRETS / "sql_alchemy_conn", []
    if not secret.exists():
        return []
    url = secret.read_text().strip().replace("postgresql+psycopg2", "postgresql")
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        for access, (right, *tables) in TABLES.items():
            cursor.execute("SELECT bool_and(has_table_privilege(t, %s)) FROM unnest(%s) t", (right, tables))
            if cursor.fetchone()[0]:
                accessible.append(access)
    if "read Connections" in accessible and (SECRETS / "fernet_key").read_text():
        accessible.append("read passwords of Connections")
    if any(LOGS.iterdir()):
        accessible.append("read task logs")
    return accessible


def accessible_to_task(run_id: str) -> list[str]:
    """Return what the process of a task can access, by the SDK and by the connection of the monitoring DAG.

    Args:
        run_id: A run of `is_triggered`, which the DAG has triggered.
    """
    import base64
    import urllib.request

    from airflow.sdk import Connection, Variable
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import SetXCom

    def read_logs() -> bool:
        return bool(next(LOGS.glob("dag_id=is_triggered/run_id=*/task_id=*/attempt=1.log")).read_text())

    def write_variable() -> bool:
        Variable.set(f"{NAME}_by_task", "written")
        Variable.delete(f"{NAME}_by_task")
        return True

    def change_xcom() -> bool:
        changed = SetXCom(key="changed", value=1, dag_id="is_triggered", run_id=run_id, task_id="wait_for_nothing")
        return task_runner.SUPERVISOR_COMMS.send(changed) is None

    def write_connection() -> bool:
        from airflow.models import Connection as Row
        from airflow.utils.session import create_session

        with create_session() as session:
            session.add(Row(conn_id=f"{NAME}_by_task", conn_type="http"))
        return True

    def read_findings() -> bool:
        log_in = Connection.get("airflow_api")
        coded = base64.b64encode(f"{log_in.login}:{log_in.password}".encode()).decode()
        url, headers = "http://gateway:8081/alertmanager-1/api/v2/alerts", {"Authorization": f"Basic {coded}"}
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.status == 200

    actions = {
        "read DAGs, runs and XComs": lambda: bool(Path(__file__).read_text()),
        "read task logs": read_logs,
        "trigger and clear runs": lambda: bool(run_id),
        "change XComs": change_xcom,
        "read Variables": lambda: Variable.get(NAME) == "a value",
        "write Variables": write_variable,
        "read Connections": lambda: Connection.get(NAME).login == "a login",
        "read passwords of Connections": lambda: Connection.get(NAME).password == "a password",
        "write Connections": write_connection,
        "call the Execution API": lambda: Variable.get(NAME) is not None,
        "send findings to the Alertmanagers": read_findings,
    }
    accessible = []
    for access, action in actions.items():
        try:
            if action():
                accessible.append(access)
        except Exception as error:
            print(access, repr(error))
    return accessible


@dag(schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), default_args=DEFAULTS, tags=["tests"])
def is_triggered():
    @task
    def wait_for_nothing() -> None:
        print("a line of the log")

    wait_for_nothing()


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    default_args=DEFAULTS,
    doc_md=json.dumps(parsed_with()),  # the API shows what the DAG processor's process stored
    tags=["tests"],
)
def accesses_everything():
    @task
    def use_all(**context: Context) -> list[str]:
        return accessible_to_task(context["ti"].xcom_pull(task_ids="trigger", key="trigger_run_id"))

    @task
    def read_redirected_connection() -> list[object]:
        """Return the host of a Connection that an Op has changed, and whether its password is still there."""
        from airflow.sdk import Connection

        connection = Connection.get(f"{NAME}_redirected")
        return [connection.host, connection.password == "a password"]

    trigger = TriggerDagRunOperator(
        task_id="trigger", trigger_dag_id="is_triggered", wait_for_completion=True, poke_interval=1
    )
    trigger >> use_all()
    read_redirected_connection()


is_triggered()
accesses_everything()
