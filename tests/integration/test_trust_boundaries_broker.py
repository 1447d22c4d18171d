"""What a task, and whoever has a worker's log-ins, cannot do to Redis, to results and to other components."""

from __future__ import annotations

import json
import pickle
import uuid

import pytest

from airflow_ha.task_process import landlock
from airflow_ha.task_process.log_ins import NAMES
from tests.stack import Stack, wait_until

DECODED = "/tmp/airflow-ha-tests-decoded"
PROBE_REDIS = """
import sys
from pathlib import Path
import redis
client = redis.Redis.from_url(Path("/run/secrets/celery_broker_url").read_text().strip(), socket_timeout=5)
for command in sys.argv[1:]:
    try:
        print("allowed", command, client.execute_command(*command.split()))
    except redis.exceptions.NoPermissionError:
        print("denied", command)
"""
DENIED_COMMANDS = (
    "CONFIG GET *", "EVAL return(1) 0", "SCRIPT LOAD return(1)", "LRANGE default 0 -1", "HGETALL unacked", "KEYS *",
    "DEL default", "FLUSHALL", "PUBLISH /0.celery.pidbox x", "PSUBSCRIBE *", "MONITOR", "ACL LIST", "CLIENT LIST",
)  # fmt: skip
PROBE_POSTGRES = """
import sys
from pathlib import Path
import psycopg2
url = Path("/run/secrets/celery_result_backend").read_text().strip().replace("db+postgresql+psycopg2", "postgresql")
for action in sys.argv[1:]:
    database, statement = action.split(":", 1)
    try:
        with psycopg2.connect(url.replace("/celery_results?", f"/{database}?")) as connection:
            connection.cursor().execute(statement)
        print("allowed", action)
    except psycopg2.Error as error:
        print("denied" if "permission denied" in str(error) else error, action)
"""
DENIED_STATEMENTS = (
    "celery_results:SELECT * FROM results.celery_taskmeta",
    "celery_results:INSERT INTO results.celery_taskmeta (task_id, status) VALUES ('any', 'SUCCESS')",
    "celery_results:UPDATE results.celery_taskmeta SET status = 'FAILURE'",
    "celery_results:CREATE TABLE public.own (at int)",
    "celery_results:CREATE SCHEMA own",
    "celery_results:SELECT pg_advisory_lock(1)",
    "celery_results:SELECT lo_from_bytea(0, 'large')",
    "airflow:SELECT 1",
    "postgres:SELECT 1",
)
FORGE = """
import sys
from airflow.providers.celery.executors.celery_executor_utils import app
app.send_task("execute_workload", args=[sys.argv[1]], queue="default")
"""


class Tripwire:
    """An object whose pickle creates a file where it is decoded."""

    def __reduce__(self):
        return open, (DECODED, "w")


def halves_of_passwords(stack: Stack) -> list[list[str]]:
    passwords = [stack.secret(name) for name in ("redis_password", "postgres_celery_password")]
    return [[password[:12], password[12:]] for password in passwords]


def sql(stack: Stack, statement: str, database: str = "celery_results", **values: str) -> str:
    """Return the answer to a statement of the superuser, in which :'name' stands for a value."""
    (postgres,) = stack.containers("postgres")
    options = [option for name, value in values.items() for option in ("-v", f"{name}={value}")]
    script = 'echo "$1" | psql -U postgres -qAt -v ON_ERROR_STOP=1 -d "$2" "${@:3}"'
    return postgres.execute("bash", "-c", script, "bash", statement, database, *options).stdout.strip()


def operator(stack: Stack, command: str) -> str:
    (redis,) = stack.containers("redis")
    script = f"REDISCLI_AUTH=$(cat /run/secrets/redis_operator_password) redis-cli --user operator {command}"
    return redis.execute("sh", "-c", script).stdout.strip()


def test_no_client_of_the_stack_is_denied_a_command(healthy_stack: Stack):
    stack = healthy_stack
    operator(stack, "acl log reset")
    run = stack.api.trigger("ml_pipeline_dag")
    assert stack.api.wait_for_run("ml_pipeline_dag", run, timeout=180) == "success"
    assert stack.flower.get("/api/workers", params={"refresh": "1", "status": "1"}).json()
    queues = stack.flower.get("/api/queues/length").json()["active_queues"]
    assert "default" in [queue["name"] for queue in queues]
    assert stack.prometheus.value("min(redis_up)") == 1
    assert operator(stack, "acl log") == ""


@pytest.mark.skipif(bool(landlock.obstacle()), reason=landlock.obstacle())
def test_a_task_cannot_find_its_workers_log_ins(stack: Stack):
    run = stack.api.trigger("finds_log_ins", halves=halves_of_passwords(stack))
    assert stack.api.wait_for_run("finds_log_ins", run, timeout=90) == "success"
    outcome = stack.api.xcom("finds_log_ins", run, "search")
    outcome = json.loads(outcome) if isinstance(outcome, str) else outcome
    authorities = dict.fromkeys(("postgres_ca.pem", "redis_ca.pem"), "read")  # public
    assert outcome["files"] == dict.fromkeys(NAMES, "Permission denied") | authorities
    assert outcome["in memory"] == 0
    assert outcome["memory of the worker"] == "Permission denied"
    assert outcome["connections"] == []
    assert "NOAUTH" in outcome["redis"]
    if landlock._version() >= landlock.VERSION_WITH_SIGNALS:
        assert outcome["signal to the worker"] == "Operation not permitted"


def test_a_workers_log_in_to_redis_has_the_least_rights(stack: Stack):
    worker = stack.containers("worker")[0]
    output = worker.execute("python", "-c", PROBE_REDIS, *DENIED_COMMANDS).stdout
    assert output.splitlines() == [f"denied {command}" for command in DENIED_COMMANDS]


def test_a_workers_log_in_to_postgres_may_only_store_results(stack: Stack):
    worker = stack.containers("worker")[0]
    actions = (*DENIED_STATEMENTS, "celery_results:SELECT results.store('tests', 'SUCCESS', NULL)")
    output = worker.execute("python", "-c", PROBE_POSTGRES, *actions).stdout
    assert output.splitlines() == [*(f"denied {action}" for action in actions[:-1]), f"allowed {actions[-1]}"]
    limits = "SELECT rolconnlimit > 0, 'statement_timeout=30s' = ANY (rolconfig) FROM pg_roles"
    assert sql(stack, f"{limits} WHERE rolname = 'celery_results'") == "t|t"


def test_a_scheduler_reads_a_result_and_decodes_nothing(healthy_stack: Stack):
    """The row is of an older version's kind: it has a pickle beside the state."""
    stack, api = healthy_stack, healthy_stack.api
    run = api.trigger("waits_for_a_file")
    wait_until(lambda: api.in_state("waits_for_a_file", run, "wait", "running"), timeout=60, what="the task runs")
    message = sql(stack, "SELECT external_executor_id FROM task_instance WHERE run_id = :'run'", "airflow", run=run)
    sql(stack, "ALTER TABLE results.celery_taskmeta ADD COLUMN result bytea")
    try:
        row = {"message": message, "result": f"\\x{pickle.dumps(Tripwire()).hex()}"}
        insert = (
            "INSERT INTO results.celery_taskmeta (task_id, status, result) VALUES (:'message', 'FAILURE', :'result')"
        )
        sql(stack, insert, **row)
        # The scheduler has read the row when it ends the first try; the second returns at once.
        assert api.wait_for_run("waits_for_a_file", run, timeout=120) == "success"
        (ended,) = api.in_state("waits_for_a_file", run, "wait", "success")
        assert ended["try_number"] == 2
    finally:
        sql(stack, "ALTER TABLE results.celery_taskmeta DROP COLUMN result")
    for scheduler in stack.containers("scheduler"):
        assert scheduler.execute("ls", DECODED, check=False).returncode != 0


def test_a_forged_callback_is_refused(stack: Stack):
    """By a log-in of a worker; the function is harmless."""
    name = f"tests/{uuid.uuid4()}.log"
    message = {
        "type": "ExecuteCallback",
        "token": "none",
        "dag_rel_path": "ml_pipeline_dag.py",
        "bundle_info": {"name": "dags-folder", "version": None},
        "log_path": name,
        "callback": {
            "id": str(uuid.uuid4()),
            "fetch_method": "import_path",
            "data": {"path": "gc.collect", "kwargs": {}},
        },
    }
    worker = stack.containers("worker")[0]
    worker.execute("python", "-c", FORGE, json.dumps(message))

    def log() -> str:
        return worker.execute("cat", f"/opt/airflow/logs/{name}", check=False).stdout

    wait_until(lambda: "CALLBACK_PATHS" in log(), timeout=60, what="the worker refuses the callback")
    assert "executed successfully" not in log()
