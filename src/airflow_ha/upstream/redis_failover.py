"""A Redis that is replaced costs a connection, not the worker.

The fault, in redis-py 6.4 with kombu 5.6: a Redis that was the primary and no longer is answers READONLY, which
redis-py takes for a lost connection, but just as well NOREPLICAS (it has come back alone, and takes no writes) or
UNBLOCKED (it became a replica while a worker waited for a task). Those two are plain errors: a worker ends with
"Unrecoverable error" and takes its running tasks with it, and a scheduler does not try again to publish.

The work-round: both mean that the primary is elsewhere, so both are lost connections, which kombu, Celery and Airflow
repair.

No upstream issue was found. It can go when the test `test_redis_failover.py` passes without it.
Loaded by schedulers, workers and Flower with Celery's settings (airflow_ha/celery_config.py).
"""

from __future__ import annotations

from redis._parsers.base import BaseParser
from redis.exceptions import ConnectionError as RedisConnectionError


class PrimaryIsElsewhereError(RedisConnectionError):
    """This Redis takes no writes at present: another may be the primary."""


BaseParser.EXCEPTION_CLASSES.update(NOREPLICAS=PrimaryIsElsewhereError, UNBLOCKED=PrimaryIsElsewhereError)
