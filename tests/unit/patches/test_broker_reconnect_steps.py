"""A worker that lost its broker reconnects every second."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import yaml
from celery import Celery
from celery.worker.consumer import Consumer
from kombu import Connection
from redis.exceptions import ConnectionError as RedisConnectionError

from ops.project import ROOT
from tests.unit.patches.loading import applied

SETTINGS = json.loads(
    yaml.safe_load((ROOT / "compose/airflow.yaml").read_text())["x-airflow-environment"][
        "AIRFLOW__CELERY__EXTRA_CELERY_CONFIG"
    ]
)


class Broker:
    """A broker that refuses connections for some seconds, on a clock that advances only by sleeping."""

    def __init__(self, monkeypatch, refuses_for: float) -> None:
        self.now = 0.0
        self.refuses_for = refuses_for
        self.waits: list[float] = []
        monkeypatch.setattr("kombu.utils.functional.sleep", self._sleep)
        self.connection = Connection("redis://")
        monkeypatch.setattr(self.connection, "_connection_factory", self._connect)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def _connect(self) -> object:
        if self.now < self.refuses_for:
            raise RedisConnectionError
        return object()

    def seconds_until_connected(self, consumer: type) -> float:
        """Return the seconds until a worker's consumer is connected."""
        app = Celery(set_as_current=False, config_source=SETTINGS)
        worker = SimpleNamespace(app=app, first_connection_attempt=False, broker_connection_retry_attempt=0)
        bound = type("Worker", (consumer,), {"__init__": lambda self: self.__dict__.update(vars(worker))})()
        bound.ensure_connected(self.connection)
        return self.now


@pytest.mark.parametrize("outage", [0, 1, 7, 600])
def test_worker_reconnects_within_a_second_of_recovery(monkeypatch, outage):
    with applied("broker_reconnect_steps"):
        seconds = Broker(monkeypatch, refuses_for=outage).seconds_until_connected(Consumer)
    assert outage <= seconds <= outage + 1.001


def test_upstream_reconnects_after_twelve_seconds(monkeypatch):
    # If this fails, upstream is fixed: delete the patch.
    assert Broker(monkeypatch, refuses_for=7).seconds_until_connected(Consumer) == 12
