"""What users who may trigger runs, tasks and DAG files cannot read: the secrets of other components."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from ops import compose, token_keys
from tests.stack import Container, Stack, wait_until

PIPELINE = "ml_pipeline_dag"
INBOX = "/opt/airflow/artifacts/inbox"
REFUSED_SOURCES = (
    "file:///run/secrets/celery_broker_url",
    f"file://{INBOX}/../../../../run/secrets/celery_broker_url",
    f"file://{INBOX}/tests-file-link.csv",
    f"file://{INBOX}/tests-folder-link/celery_broker_url",
    "local:///run/secrets/celery_broker_url",
    "http://gateway:8080/api/v2/version",
    "http://169.254.169.254/latest/meta-data/",
)
TASK_FOLDER = "/opt/airflow/logs/dag_id=reaches_out/run_id={run}/task_id=attack_logs"
PLANTED = "/tmp/planted"
EXCHANGE = """
import ctypes, os, shutil, sys, time
folder, attack, stop = sys.argv[1:]
log, kept = folder + "/attempt=1.log", folder + ".kept"
shutil.copytree(folder, kept)
if attack == "link through a folder":
    first, second = folder + "/real", folder + "/link"
    os.mkdir(first)
    open(first + "/jwt_users_key", "w").write('{"event": "a line"}\\n')
    os.symlink("/run/secrets", second)
    os.unlink(log)
    os.symlink("real/jwt_users_key", log)
else:
    first, second = folder, folder + ".link"
    os.symlink("/tmp/planted", second)
exchange, exchanges = ctypes.CDLL(None).renameat2, 0
print("started", flush=True)
while not os.path.exists(stop):
    assert exchange(-100, first.encode(), -100, second.encode(), 2) == 0
    exchanges += 1
for path in (folder, folder + ".link"):
    if os.path.islink(path):
        os.unlink(path)
    elif os.path.isdir(path):
        shutil.rmtree(path)
os.rename(kept, folder)
print(exchanges)
"""
"""Exchanges a log's folder and a link without a pause, until a file exists; then puts the log back."""
READS = 300


def test_a_run_reads_no_file_or_service_outside_its_roots(stack: Stack):
    api, worker = stack.api, stack.containers("worker")[0]
    worker.execute("mkdir", "-p", INBOX)
    worker.execute("ln", "-sfn", "/run/secrets/celery_broker_url", f"{INBOX}/tests-file-link.csv")
    worker.execute("ln", "-sfn", "/run/secrets", f"{INBOX}/tests-folder-link")
    runs = {source: api.trigger(PIPELINE, source=source) for source in REFUSED_SOURCES}
    for source, run in runs.items():
        assert api.wait_for_run(PIPELINE, run, timeout=180) == "failed", source
        (sensor,) = api.in_state(PIPELINE, run, "wait_for_data", "failed")
        assert sensor["try_number"] == 1, "a refused source is not tried again"
        assert api.in_state(PIPELINE, run, "download_data", "upstream_failed"), source
        log = api.log(PIPELINE, run, "wait_for_data")
        assert "RefusedSourceError" in log, source
        assert stack.secret("redis_password") not in log
        assert "redis://" not in log, source


@pytest.fixture(scope="module")
def reached_out(stack: Stack) -> str:
    """Run the task that attacks logs, after a run of another DAG has left some; return its run's id."""
    other = stack.api.trigger(PIPELINE)
    assert stack.api.wait_for_run(PIPELINE, other, timeout=120) == "success"
    run = stack.api.trigger("reaches_out")
    assert stack.api.wait_for_run("reaches_out", run, timeout=90) == "success"
    return run


def parsed_with(stack: Stack) -> Any:
    """Return what the process that parses DAG files can reach, once it has seen the logs of another DAG."""

    def outcome() -> Any:
        stored = json.loads(stack.api.get("/dags/reaches_out/details")["doc_md"])
        return stored if stored["logs"]["another DAG has a log"] else None

    return wait_until(outcome, timeout=150, what="the DAG file was parsed again")


def mounted_secrets(container: Container) -> set[str]:
    """Return the names of the files in a container's /run/secrets, also of a container without a shell."""
    mounts = container.inspect()["Mounts"]
    folder = "/run/secrets/"
    return {each["Destination"].removeprefix(folder) for each in mounts if each["Destination"].startswith(folder)}


def test_each_component_is_healthy_with_its_secrets_and_no_others(healthy_stack: Stack):
    services = compose.config(healthy_stack.project)["services"]
    for container in healthy_stack.containers():
        listed = {secret["source"] for secret in services[container.service].get("secrets", [])}
        assert mounted_secrets(container) == listed, container.service
        if listed:
            assert set(container.execute("ls", "/run/secrets").stdout.split()) == listed, container.service


def test_no_dag_code_has_a_key_that_signs_tokens(stack: Stack, reached_out: str):
    """And without one, DAG files are parsed, tasks run, and triggers fire (test_ml_pipeline.py)."""
    certificates = ["postgres_ca.pem", "postgres_client.pem"]  # empty: of an external Postgres
    keys_of_parsing = ["fernet_key", *certificates, "sql_alchemy_conn", "sql_alchemy_conn_async"]
    assert parsed_with(stack)["secrets"] == keys_of_parsing
    keys = {stack.secret(name) for name in (*token_keys.TRUSTED, "api_secret_key")}
    for service in ("dag-processor", "triggerer", "worker"):
        for container in stack.containers(service):
            files = container.execute("sh", "-c", "cat /run/secrets/*; cat /proc/1/environ; env").stdout
            assert not [key for key in keys if key in files], service


def test_neither_a_task_nor_a_dag_file_can_write_logs(stack: Stack, reached_out: str):
    by_task = stack.api.xcom("reaches_out", reached_out, "attack_logs")
    by_task = json.loads(by_task) if isinstance(by_task, str) else by_task
    for outcomes in (by_task, parsed_with(stack)["logs"]):
        assert outcomes.pop("another DAG has a log")
        assert len(outcomes) == 4
        assert {name for name, succeeded in outcomes.items() if succeeded} == set()


def test_api_servers_can_write_no_log_and_have_no_dag_files(stack: Stack):
    for server in stack.containers("api-server"):
        assert server.execute("touch", "/opt/airflow/logs/written", check=False).returncode != 0
        assert server.execute("ls", "/opt/airflow/dags").stdout == ""
    assert "def ml_pipeline" in stack.api.get(f"/dagSources/{PIPELINE}")["content"]


@contextmanager
def exchanging(worker: Container, folder: str, attack: str) -> Iterator[None]:
    """Let the worker exchange a log's folder and a link for the duration of the block."""
    stop = f"{PLANTED}-stop"
    worker.execute("rm", "-f", stop)
    command = ["docker", "exec", worker.id, "python", "-S", "-c", EXCHANGE, folder, attack, stop]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "started\n"
    try:
        yield
    finally:
        worker.execute("touch", stop)
        output, _ = process.communicate(timeout=60)
    assert int(output) > READS, "there were fewer exchanges than reads"


@pytest.mark.parametrize("attack", ["link through a folder", pytest.param("folder", marks=pytest.mark.nightly)])
def test_a_link_swapped_in_while_a_log_is_read_shows_no_secret(stack: Stack, reached_out: str, attack: str):
    """Not by a task, which cannot write logs at all, but by another process of the worker's user."""
    servers, worker = stack.containers("api-server"), stack.containers("worker")[0]
    for server in servers:
        server.execute("sh", "-c", f"mkdir -p {PLANTED} && echo planted-marker > {PLANTED}/attempt=1.log")
    path = f"/api/v2/dags/reaches_out/dagRuns/{reached_out}/taskInstances/attack_logs/logs/1"
    kinds = ("application/json", "application/x-ndjson")

    def read(number: int) -> httpx.Response:
        params = {"full_content": number % 4 < 2}
        return stack.api.http.get(path, params=params, headers={"Accept": kinds[number % 2]})

    with exchanging(worker, TASK_FOLDER.format(run=reached_out), attack), ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(read, range(READS)))
    secrets = [stack.secret(name) for name in (*token_keys.TRUSTED, "api_secret_key", "fernet_key")]
    assert {answer.status_code for answer in answers} == {200}
    leaks = [answer.text for answer in answers for text in (*secrets, "planted-marker") if text in answer.text]
    assert leaks == []
    assert "a printed line" in read(0).text, "the log is read again after the attack"
