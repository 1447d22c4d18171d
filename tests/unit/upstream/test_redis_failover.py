"""A Redis that was replaced costs a connection, not the worker."""

from __future__ import annotations

import pytest
from kombu.transport.redis import get_redis_error_classes
from redis._parsers.base import BaseParser
from redis.exceptions import ResponseError

from airflow_ha.upstream import redis_failover

ANSWERS = [
    "NOREPLICAS Not enough good replicas to write.",
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
]


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_of_a_redis_that_is_no_longer_the_primary_is_a_lost_connection_to_kombu(answer):
    error = BaseParser.parse_error(answer)
    assert isinstance(error, redis_failover.PrimaryIsElsewhereError)
    assert isinstance(error, get_redis_error_classes().connection_errors)


@pytest.mark.parametrize("answer", ANSWERS)
def test_upstream_still_takes_it_for_an_error_that_nothing_repairs(answer, monkeypatch):
    """When this fails the work-round can go."""
    for code in ("NOREPLICAS", "UNBLOCKED"):
        monkeypatch.delitem(BaseParser.EXCEPTION_CLASSES, code)
    error = BaseParser.parse_error(answer)
    assert type(error) is ResponseError
    assert not isinstance(error, get_redis_error_classes().connection_errors)


def test_schedulers_workers_and_flower_load_it_with_celerys_settings():
    from airflow_ha.celery_config import CELERY_CONFIG

    assert CELERY_CONFIG["broker_transport_options"]
