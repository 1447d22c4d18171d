"""A worker that lost its broker asks for it every second."""

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
    """One that refuses for a time, on a clock that only waiting moves."""

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

    def is_found_after(self, consumer: type) -> float:
        """Seconds until a worker's consumer has it."""
        app = Celery(set_as_current=False, config_source=SETTINGS)
        worker = SimpleNamespace(app=app, first_connection_attempt=False, broker_connection_retry_attempt=0)
        bound = type("Worker", (consumer,), {"__init__": lambda self: self.__dict__.update(vars(worker))})()
        bound.ensure_connected(self.connection)
        return self.now


@pytest.mark.parametrize("away", [0, 1, 7, 600])
def test_a_broker_is_found_a_second_after_it_is_back_however_long_it_was_away(monkeypatch, away):
    with applied("broker_reconnect_steps"):
        found = Broker(monkeypatch, refuses_for=away).is_found_after(Consumer)
    assert away <= found <= away + 1.001


def test_upstream_still_takes_longer(monkeypatch):
    # When it no longer does, the patch can go.
    assert Broker(monkeypatch, refuses_for=7).is_found_after(Consumer) == 12
