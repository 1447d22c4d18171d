"""A task finds no log-in of its worker: not in files, in memory or in open connections."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from airflow_ha.task_process import landlock
from airflow_ha.task_process.log_ins import NAMES
from tests.unit.compose.model import compose_model

WORKER = """
import json, os, re, select, socket, sys
from pathlib import Path
from airflow_ha import secret_masking
from airflow_ha.task_process import log_ins

secret_masking.SECRETS = Path(sys.argv[1])
worker = os.getpid()
main_pipe = os.pipe()
server = socket.create_server(("127.0.0.1", 0))
broker = socket.create_connection(server.getsockname())
metrics = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
queue = select.epoll()
password = (secret_masking.SECRETS / "celery_broker_url").read_text()[9:-2]
held = [password, password.encode(), re.compile(f"a|{re.escape(password)}"), {"password": password}]


def found_in_memory():
    # Compare in pieces, so that the search does not contain what it searches.
    pieces = [piece.encode() for piece in sys.argv[2].split(",")]
    number = 0
    with open("/proc/self/mem", "rb", 0) as memory:
        for line in open("/proc/self/maps"):
            start, end = (int(address, 16) for address in line.split()[0].split("-"))
            if " rw-p " in line and "[v" not in line:
                memory.seek(start)
                content = memory.read(end - start)
                at = content.find(pieces[0])
                while at >= 0:
                    number += content[at + len(pieces[0]):].startswith(pieces[1])
                    at = content.find(pieces[0], at + 1)
    return number


def is_null(number):
    return os.readlink(f"/proc/self/fd/{number}") == "/dev/null"


def outcome(action):
    try:
        return action()
    except OSError as error:
        return error.strerror


def task():
    names = (*log_ins.NAMES, "of_an_operator")
    report = {name: outcome(lambda: Path(sys.argv[1], name).read_text()) for name in names}
    report["in memory"] = found_in_memory()
    report["signal"] = outcome(lambda: os.kill(worker, 0) or "sent")
    report["null"] = [is_null(file) for file in (*main_pipe, broker.fileno(), server.fileno(), queue.fileno())]
    report["metrics"] = not is_null(metrics.fileno())
    own = os.pipe()
    os.dup2(own[1], main_pipe[1])  # a task may use the numbers again
    if not (child := os.fork()):
        os.write(main_pipe[1], b"from a child")
        os._exit(0)
    os.waitpid(child, 0)
    report["pipe of the task"] = os.read(own[0], 100).decode()
    print(json.dumps(report), flush=True)


def pool_process():
    log_ins.give_up()
    print(json.dumps([is_null(file) for file in (*main_pipe, broker.fileno(), queue.fileno())]), flush=True)
    if not (child := os.fork()):
        task()
        os._exit(0)
    os.waitpid(child, 0)


if not (child := os.fork()):
    pool_process()
    os._exit(0)
os.waitpid(child, 0)
print(len(held), broker.fileno() >= 0)
"""
PIECES = "Xk29fMq7,Tz81LbVw"
PASSWORD = PIECES.replace(",", "")


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """What a pool process and its task report."""
    secrets = tmp_path_factory.mktemp("secrets") / "run/secrets"
    secrets.mkdir(parents=True)
    (secrets / "celery_broker_url").write_text(f"redis://:{PASSWORD}@h")
    (secrets / "celery_sentinel_kwargs").write_text(json.dumps({"password": PASSWORD}))
    (secrets / "celery_result_backend").write_text(f"db+postgresql://u:{PASSWORD}@h/d")
    for link in ("postgres", "redis"):
        (secrets / f"{link}_client.pem").write_text("-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n")
    (secrets / "of_an_operator").write_text("for tasks")
    program = [sys.executable, "-c", WORKER, str(secrets), PIECES]
    output = subprocess.run(program, check=True, capture_output=True, text=True, timeout=60).stdout
    pool_process, task, _ = output.splitlines()
    return json.loads(pool_process), json.loads(task)


needs_landlock = pytest.mark.skipif(bool(landlock.obstacle()), reason=landlock.obstacle())


@needs_landlock
def test_task_cannot_read_its_workers_secret_files(reports):
    _, task = reports
    assert {task[name] for name in NAMES} == {"Permission denied"}
    assert task["of_an_operator"] == "for tasks"


@needs_landlock
def test_task_finds_no_password_in_its_memory(reports):
    assert reports[1]["in memory"] == 0


@needs_landlock
def test_task_cannot_signal_its_worker(reports):
    if landlock._version() < landlock.VERSION_WITH_SIGNALS:
        pytest.skip("Landlock refuses signals from Linux 6.12 on")
    assert reports[1]["signal"] == "Operation not permitted"


def test_task_has_no_connection_or_pipe_of_its_worker(reports):
    pool_process, task = reports
    assert pool_process == [False, False, True, True], "a pool process keeps its pipes to the main process"
    assert task["null"] == [True] * 5
    assert task["metrics"] is True


def test_a_task_may_use_the_numbers_of_the_pipes(reports):
    assert reports[1]["pipe of the task"] == "from a child"


def test_every_secret_of_a_worker_is_given_up():
    secrets = set(compose_model()["services"]["worker"]["secrets"])
    assert set(NAMES) == {name for name in secrets if not name.endswith("_ca.pem")}, "authorities are public"
