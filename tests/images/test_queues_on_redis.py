"""Workers' announcements and withdrawn messages in a real Redis, through Celery's own connection."""

from __future__ import annotations

import pytest
from celery import Celery

from airflow_ha.queues import queue_registry
from airflow_ha.queues.broker import Broker
from tests.images.conftest import docker
from tests.images.test_data_images import DATABASE_USER, wait_for


@pytest.fixture
def celery_app(images, start, monkeypatch):
    """Celery with its own Redis as the broker, in place of the scheduler's."""
    reference = images["REDIS_IMAGE"].reference
    server = start("--publish", "127.0.0.1::6379", "--user", DATABASE_USER, "--tmpfs", "/data", reference)
    wait_for(server, "redis-cli", "PING")
    port = docker("port", server, "6379").output.strip().rpartition(":")[2]
    app = Celery(set_as_current=False, broker=f"redis://127.0.0.1:{port}/0")
    from airflow.providers.celery.executors import celery_executor_utils

    monkeypatch.setattr(celery_executor_utils, "app", app)
    return app


def test_schedulers_read_what_workers_announce(celery_app):
    broker = Broker()
    assert broker.call(queue_registry.consumed) is None
    broker.call(lambda client: queue_registry.announce(client, "celery@a", 8, ["default"]))
    broker.call(lambda client: queue_registry.announce(client, "celery@b", 2, ["gpu", "größe"]))
    consumed = broker.call(queue_registry.consumed)
    assert consumed == queue_registry.Consumed(frozenset({"default", "gpu", "größe"}), {"gpu": 2, "größe": 2})


def test_a_withdrawn_message_leaves_the_others_in_their_queue(celery_app, monkeypatch):
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

    names = ("_executable_task_instances_to_queued", "_handle_tasks_stuck_in_queued", "_maybe_requeue_stuck_ti")
    for name in names:  # the patch replaces them; restore them after the test
        monkeypatch.setattr(SchedulerJobRunner, name, getattr(SchedulerJobRunner, name))
    from airflow_ha.patches import hold_unconsumed_queues

    for name in ("one", "two", "three"):
        celery_app.send_task("execute_workload", args=["x"], queue="gpu", task_id=name)
    Broker().call(lambda client: hold_unconsumed_queues.remove_message("gpu", "two", client))
    left = Broker().call(lambda client: client.lrange("gpu", 0, -1))
    assert len(left) == 2
    assert not any(b'"two"' in message for message in left)
