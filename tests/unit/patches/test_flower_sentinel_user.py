"""Flower logs in to the primary that Sentinel names with the user name of its broker's URL."""

from __future__ import annotations

from flower.utils import broker

from tests.unit.patches.loading import applied

URL = "sentinel://flower:p%40ss@sentinel:26379/0"
OPTIONS = {"master_name": "airflow", "sentinel_kwargs": {"username": "flower", "password": "p@ss"}}


def login() -> tuple[str | None, str | None]:
    """Return user and password of Flower's connections to the primary."""
    arguments = broker.Broker(URL, broker_options=OPTIONS).redis.connection_pool.connection_kwargs
    return arguments.get("username"), arguments["password"]


def test_flower_logs_in_with_its_user():
    with applied("flower_sentinel_user"):
        assert login() == ("flower", "p@ss")


def test_upstream_omits_the_user():
    """If this fails, flower is fixed: delete flower_sentinel_user and this file."""
    assert login() == (None, "p@ss")
