"""What `doctor` and `autoscale` read from a real Postgres: connections, transactions, unread slots, tasks."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from airflow_ha.queues import demand
from ops import data_tier
from ops.compose import Instance
from ops.doctor import broker, database, tasks
from ops.doctor.finding import Examined, Finding
from ops.errors import StackError
from ops.project import ROOT, Project
from tests.images.conftest import docker
from tests.images.test_data_images import DATABASE_USER, wait_for
from tests.stack import wait_until

LIMIT = 20
SCHEMA = """
CREATE ROLE airflow LOGIN;
CREATE DATABASE airflow OWNER airflow;
\\c airflow
SET ROLE airflow;
CREATE TABLE task_instance (dag_id text, task_id text, run_id text, state text, queue text, hostname text,
  queued_dttm timestamptz, last_heartbeat_at timestamptz, start_date timestamptz);
INSERT INTO task_instance VALUES
  ('sales', 'load', 'r', 'queued', 'gpu', NULL, now() - interval '10 min', NULL, NULL),
  ('sales', 'soon', 'r', 'queued', 'default', NULL, now(), NULL, NULL),
  ('sales', 'train', 'r', 'running', 'default', 'w', now(), now() - interval '10 min', now()),
  ('sales', 'next', 'r', 'scheduled', 'gpu', NULL, NULL, NULL, NULL);
RESET ROLE;
SELECT pg_create_physical_replication_slot('nobody', true);
"""
"""The columns of Airflow's table that the queries read."""


@pytest.fixture
def examined(images, start, readable, tmp_path) -> Examined:
    """A stack that consists of a Postgres with few connections."""
    container = start(
        *("--network", "none", "--user", DATABASE_USER, "--tmpfs", "/tmp", "--env", "POSTGRES_PASSWORD=p"),
        *("--tmpfs", "/var/run/postgresql:uid=999,gid=999,mode=3775", "--tmpfs", "/var/lib/postgresql/data:uid=999"),
        *("--volume", f"{readable('schema.sql', SCHEMA)}:/docker-entrypoint-initdb.d/schema.sql:ro"),
        *(images["POSTGRES_IMAGE"].reference, "postgres", "-c", f"max_connections={LIMIT}"),
    )
    wait_for(container, "pg_isready", "-q", "-h", "127.0.0.1")
    instance = Instance(id=container, state="running", health="healthy", created=0.0)
    return Examined(
        Project(ROOT, tmp_path), {"COMPOSE_PROFILES": "data"}, {"postgres": [instance]}, docker_answers=True
    )


@contextmanager
def sessions(examined: Examined, sql: str, number: int = 1) -> Iterator[None]:
    """Keep sessions of the role airflow open that run a statement, for the duration of the block."""
    command = ["docker", "exec", "--interactive", examined.container("postgres"), "psql", "-U", "airflow", "-q"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    clients = [subprocess.Popen(command, **pipes) for _ in range(number)]
    try:
        for client in clients:
            client.stdin.write(f"\\echo connected\n{sql};\n")
            client.stdin.flush()
        for client in clients:
            assert client.stdout.readline() == "connected\n"
        yield
    finally:
        for client in clients:
            client.communicate()


def run_fix(fix: str) -> None:
    subprocess.run(["sh", "-c", fix], check=True, capture_output=True)


def blocking(examined: Examined) -> list[Finding]:
    return [each for each in database.transactions(database.gather(examined)) if "blocks" in each.state]


def test_filled_connections_are_read_although_none_is_left(examined):
    assert not list(database.connections(database.gather(examined)))
    # The last three are for superusers.
    with sessions(examined, "SELECT 1", number=LIMIT - 3):
        facts = database.gather(examined)
        (finding,) = database.connections(facts)
        run_fix(finding.fix)
    assert (facts.connections, facts.limit) == (LIMIT - 2, LIMIT)
    assert finding.value == f"{LIMIT - 2} of {LIMIT} in use"


def test_transaction_that_blocks_is_read_and_its_fix_ends_it(examined, monkeypatch):
    monkeypatch.setattr(database, "BLOCKED_URGENT", 0.0)
    with sessions(examined, "BEGIN; LOCK TABLE task_instance"), sessions(examined, "SELECT * FROM task_instance"):
        (finding,) = wait_until(partial(blocking, examined), timeout=20, what="the second session waits")
        assert (str(finding.urgency), finding.object) == ("urgent", "database airflow")
        run_fix(finding.fix)
        wait_until(lambda: not blocking(examined), timeout=20, what="no session waits")


def test_tasks_behind_a_lock_are_an_error_within_seconds(examined):
    with sessions(examined, "BEGIN; LOCK TABLE task_instance"):
        wait_until(lambda: database.gather(examined).sessions, timeout=20, what="the lock is held")
        with pytest.raises(StackError, match="longer than 4 s"):
            tasks.gather(examined)
    assert [task.task_id for task in tasks.gather(examined).stuck] == ["load", "train"]


def test_waiting_tasks_slots_and_clock_are_read(examined):
    assert broker.waiting_tasks(examined) == {"gpu": 2, "default": 1}
    facts = database.gather(examined)
    assert facts.slots.keys() == {"nobody"}
    assert facts.clock < 1.0
    assert 0 < facts.oldest_id < 10_000
    assert "task_instance" in facts.tables


@pytest.mark.parametrize(
    ("queues", "counts", "workers"), [("default", "1|1", "2"), ("default,gpu", "2|1", "3"), ("none", "0|0", "0")]
)
def test_autoscaling_counts_the_tasks_of_its_queues(examined, queues, counts, workers):
    """The statements of `autoscale` and of KEDA."""
    postgres = examined.container("postgres")
    command = (*data_tier.PSQL, "-d", "airflow", "-Atc")
    assert data_tier.ask(postgres, *command, demand.count_query(queues)) == counts
    assert data_tier.ask(postgres, *command, demand.workers_query(queues, 1)) == workers
    assert data_tier.ask(postgres, *command, demand.workers_query(queues, 2)) == str(-(-int(workers) // 2))


def test_stopped_postgres_is_an_error(examined):
    docker("stop", examined.container("postgres"))
    with pytest.raises(StackError, match="no node accepts writes"):
        database.gather(examined)
