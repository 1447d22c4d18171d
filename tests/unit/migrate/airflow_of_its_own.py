"""Migrate an Airflow and query it as the monitoring account; test_monitoring_account.py runs this script.

It prints one line of JSON. It needs its own process, because the other tests' Airflow has another authentication.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

HOME = Path(sys.argv[1])
DAGS = Path(sys.argv[2])
os.environ |= {
    "AIRFLOW_HOME": str(HOME),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
    "AIRFLOW__CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
    "AIRFLOW__API_AUTH__JWT_SECRET": "j" * 64,
    "AIRFLOW__API__SECRET_KEY": "k" * 64,
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME}/airflow.db",
}

ADMIN_PASSWORD = "of-the-admin"
IN_FILE_LATER = ("other", "other", "last")

FORBIDDEN = [
    ("POST", "/dags/ml_pipeline_dag/dagRuns", {"logical_date": None}),
    ("PATCH", "/dags/ml_pipeline_dag", {"is_paused": True}),
    ("DELETE", "/dags/ml_pipeline_dag", None),
    ("PATCH", "/dags/ml_pipeline_dag/dagRuns/r%2B0", {"state": "success"}),
    ("POST", "/dags/ml_pipeline_dag/clearTaskInstances", {}),
    ("PATCH", "/pools/default_pool", {"slots": 1}),
    ("GET", "/dags/ml_pipeline_dag/dagRuns/r%2B0/taskInstances/plan_run/xcomEntries", None),
    ("GET", "/dags/ml_pipeline_dag/dagRuns/r%2B0/taskInstances/plan_run/logs/1", None),
    ("GET", "/dagSources/ml_pipeline_dag", None),
    ("GET", "/connections", None),
    ("GET", "/variables", None),
    ("POST", "/variables", {"key": "k", "value": "v"}),
    ("GET", "/config", None),
    ("GET", "/eventLogs", None),
]


def migrate(monitoring_password: str, admin_password: str = ADMIN_PASSWORD) -> list[str]:
    """Migrate and return the printed changes."""
    from airflow_ha import migrate

    migrate.result_database.prepare = lambda _: None  # of Postgres; tests/images/test_result_database.py
    migrate.SECRETS = HOME / "secrets"
    migrate.SECRETS.mkdir(exist_ok=True)
    (migrate.SECRETS / "airflow_admin_password").write_text(f"{admin_password}\n")
    (migrate.SECRETS / "airflow_monitoring_password").write_text(f"{monitoring_password}\n")
    with redirect_stdout(StringIO()) as output:
        migrate.main()
    return [line for line in output.getvalue().splitlines() if line.startswith(("created ", "set ", "kept ", "gave "))]


def widen() -> None:
    """Give the account more permissions, as an operator might."""
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

    with get_application_builder() as appbuilder:
        security = appbuilder.sm
        security.add_permission_to_role(
            security.find_role("Monitoring"), security.create_permission("can_read", "Variables")
        )
        user = security.find_user(username="monitoring")
        user.roles = [*user.roles, security.find_role("Op")]
        security.update_user(user)


def change_admin_password(password: str) -> None:
    """Change the password as the admin does in the UI."""
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

    with get_application_builder() as appbuilder:
        security = appbuilder.sm
        security.reset_password(security.find_user(username="admin").id, password)


def admin_password(*passwords: str) -> list[str]:
    """Return which of these passwords is the admin's."""
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
    from werkzeug.security import check_password_hash

    with get_application_builder() as appbuilder:
        known = appbuilder.sm.find_user(username="admin").password
    return [each for each in passwords if check_password_hash(known, each)]


def admin_passwords() -> list[list[object]]:
    """Change the admin's password in Airflow, in the secret file and in both.

    Returns:
        For each step the printed changes, and which password is the admin's.
    """
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    from airflow_ha.migrate import PASSWORDS

    steps: list[list[object]] = []
    for in_airflow, in_file in (("of-the-ui", ADMIN_PASSWORD), (None, "new"), ("again", "again"), (None, "again")):
        if in_airflow:
            change_admin_password(in_airflow)
        steps.append([migrate("second", in_file), admin_password(ADMIN_PASSWORD, "of-the-ui", "new", "again")])
    # The state of a stack from an earlier version of this project.
    with create_session() as session:
        session.execute(delete(PASSWORDS))
    later = [[migrate("second", in_file), admin_password("again", "other", "last")] for in_file in IN_FILE_LATER]
    return steps + later


def make_run(dag: Any, run_id: str, at: datetime, state: str, session: Any) -> Any:
    from airflow.utils.types import DagRunTriggeredByType, DagRunType

    return dag.create_dagrun(
        run_id=run_id,
        logical_date=at,
        run_after=at,
        run_type=DagRunType.SCHEDULED,
        triggered_by=DagRunTriggeredByType.TEST,
        state=state,
        data_interval=(at, at),
        session=session,
    )


def fill(now: datetime) -> None:
    """Create ten runs (three failed), a queued, a running and an unschedulable task, jobs and an import error."""
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.jobs.job import Job
    from airflow.models.dag import DagModel
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.errors import ParseImportError
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.utils.session import create_session
    from sqlalchemy import update

    with create_session() as session:
        session.add(DagBundleModel(name="dags-folder"))
    with create_session() as session:
        sync_bag_to_db(DagBag(dag_folder=str(DAGS)), "dags-folder", None, session=session)
    with create_session() as session:
        for dag_id, count, failed in [("ml_pipeline_dag", 10, 3), ("canary_dag", 9, 9)]:
            dag = SerializedDagModel.get(dag_id, session=session).dag
            for number in range(count):
                ended = now - timedelta(minutes=number)
                state = "failed" if number < failed else "success"
                run = make_run(dag, f"r+{number}", ended, state, session)
                run.start_date, run.end_date = ended, ended
                if state == "failed":
                    first = min(run.get_task_instances(session=session), key=lambda instance: instance.task_id)
                    first.state, first.end_date = state, ended
        dag = SerializedDagModel.get("ml_pipeline_dag", session=session).dag
        active = make_run(dag, "active", now + timedelta(minutes=1), "running", session)
        tasks = {instance.task_id: instance for instance in active.get_task_instances(session=session)}
        tasks["download_data"].state, tasks["download_data"].queued_dttm = "queued", now - timedelta(minutes=20)
        tasks["plan_run"].state, tasks["plan_run"].hostname = "running", "worker-1"
        stuck = tasks["report_result"]
        stuck.state, stuck.scheduled_dttm, stuck.pool = "scheduled", now - timedelta(minutes=1), "missing"
        session.execute(update(DagModel).values(is_paused=False, is_stale=False))
        session.add(
            ParseImportError(timestamp=now, filename="x.py", bundle_name="dags-folder", stacktrace="T\nNameError: y\n")
        )
        for kind, silent in [("SchedulerJob", 1), ("DagProcessorJob", 1), ("TriggererJob", 600)]:
            job = Job()
            job.job_type, job.state, job.hostname = kind, "running", kind
            job.start_date, job.latest_heartbeat = now - timedelta(hours=1), now - timedelta(seconds=silent)
            session.add(job)


def query(now: datetime) -> dict[str, object]:
    """Return the observations of the account, and the status codes of forbidden requests."""
    from airflow.api_fastapi.app import create_app
    from fastapi.testclient import TestClient

    from airflow_ha.monitoring import check_state, checks
    from airflow_ha.monitoring.airflow_api import Account, AirflowApi
    from airflow_ha.monitoring.observe import observe
    from airflow_ha.monitoring.thresholds import Thresholds

    with TestClient(create_app(apps="core")) as client:
        api = AirflowApi(
            Account("http://testserver", "monitoring", "second"), directory=HOME, transport=client._transport
        )
        observed = observe(api, Thresholds(), now)
        token = {"Authorization": f"Bearer {api._token}"}
        refused = {
            f"{method} {path}": client.request(method, f"/api/v2{path}", json=body, headers=token).status_code
            for method, path, body in FORBIDDEN
        }
    conditions = check_state.update_conditions({}, check_state.current_conditions(observed, 8), now)
    findings = checks.check(observed, check_state.CheckState(conditions=conditions), Thresholds(), 8)
    return {
        "refused": refused,
        "findings": [[each.alertname, dict(each.labels), each.summary, each.run_url] for each in findings],
        "running": dict(observed.running),
        "pools": sorted(pool.name for pool in observed.pools),
        "due": sorted(dag.dag_id for dag in observed.due),
    }


def connection() -> list[object]:
    """Return the fields of the connection."""
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        stored = session.scalar(select(Connection).where(Connection.conn_id == "airflow_api"))
        return [stored.conn_type, stored.host, stored.port, stored.login, stored.password]


def main() -> None:
    changes = [migrate("first"), migrate("first"), migrate("second")]
    widen()
    changes.append(migrate("second"))
    admin = admin_passwords()
    now = datetime.now(UTC)
    fill(now)
    print(json.dumps({"changes": changes, "admin": admin, "connection": connection(), **query(now)}))


main()
