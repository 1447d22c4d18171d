"""Redis: queues without a consumer, messages that no worker acknowledges, memory, persistence."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from airflow_ha.queues.queue_registry import CONSUMED_SECONDS, QUEUES
from ops import data_tier
from ops.doctor import database
from ops.doctor.finding import Finding, OutOfScopeError, Urgency
from ops.doctor.host import clock_difference, number, other_clock, urgency_above
from ops.errors import FAILURE, StackError
from ops.services import REDIS_NODES
from ops.settings_file import has_own_data

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ops.doctor.finding import Examined

NODES: Final = ("redis", *REDIS_NODES)
PRIORITY: Final = "\x06\x16"
"""kombu's separator between a queue's name and a priority."""
REPLIES: Final = "celery.pidbox"
"""The end of the names of lists with answers to remote commands, which are no queues of tasks."""
MOST_QUEUES: Final = 100
MOST_SCANNED, SCANNED_AT_ONCE = 20_000, 1000
"""Keys. Each unacknowledged message is a field of one key."""
MESSAGE_SECONDS: Final = 86400 + 3600
"""The visibility timeout (compose/airflow.yaml), after which a scheduler deletes the message, and an hour for that."""
MEMORY_SOON, MEMORY_URGENT = 0.85, 0.95
"""Used share of maxmemory; the alert RedisMemory fires at the first."""

WAITING: Final = """
SELECT json_build_object('queues', (SELECT coalesce(json_object_agg(queue, number), '{}') FROM (
  SELECT queue, count(*) AS number FROM task_instance
  WHERE state IN ('scheduled', 'queued') AND queue IS NOT NULL GROUP BY queue) AS waiting))
"""


@dataclass(frozen=True)
class Broker:
    """The state of the Redis that accepts writes.

    Attributes:
        container: Its container.
        clock: Seconds by which its clock differs from the host's.
        info: The fields of INFO.
        messages: Messages by queue, of the queues that have any.
        tasks: Scheduled and queued task instances by queue; empty while Postgres does not answer.
        consumed: The queues that a worker consumes; None if no worker has ever announced one.
        orphaned: Messages that a worker took and did not acknowledge within MESSAGE_SECONDS.
    """

    container: str
    clock: float
    info: Mapping[str, str]
    messages: Mapping[str, int]
    tasks: Mapping[str, int]
    consumed: frozenset[str] | None
    orphaned: int


def gather(examined: Examined) -> Broker:
    """Return the state of the Redis that accepts writes.

    Raises:
        StackError: None does, or Redis is external.
    """
    if not has_own_data(examined.settings):
        raise OutOfScopeError("cannot check Redis: it is external", hint="check it with its own monitoring")
    container, info = primary(examined)
    before = time.time()
    now = number(ask(container, "time").partition("\n")[0], "Redis' clock")
    difference = clock_difference(before - 1, now, time.time())  # Redis' whole seconds
    return Broker(
        container=container,
        clock=difference,
        info=info,
        messages=count_messages(container, list_names(container)),
        tasks=waiting_tasks(examined),
        consumed=parse_consumed(ask(container, "zrange", QUEUES, "0", "-1", "withscores"), now),
        orphaned=int(number(ask(container, "zcount", "unacked_index", "-inf", str(now - MESSAGE_SECONDS)), "ZCOUNT")),
    )


def ask(container: str, *command: str) -> str:
    """Return the answer of Redis.

    Raises:
        StackError: It does not answer, or refuses the command.
    """
    text = data_tier.ask_redis(container, *command)
    if text is None:
        raise StackError(
            f"cannot query Redis: it does not answer to {command[0].upper()}",
            where=container,
            hint="run ./ops/stack logs redis (with data-ha redis-1)",
            code=FAILURE,
        )
    return text


def list_names(container: str) -> list[str]:
    """Return the names of lists, of at most MOST_SCANNED keys."""
    names: list[str] = []
    cursor = "0"
    for _ in range(MOST_SCANNED // SCANNED_AT_ONCE):
        cursor, *more = ask(container, "scan", cursor, "type", "list", "count", str(SCANNED_AT_ONCE)).splitlines()
        names += more
        if cursor == "0":
            break
    return names


def primary(examined: Examined) -> tuple[str, dict[str, str]]:
    """Return the container of the Redis that accepts writes, and the fields of its INFO.

    Raises:
        StackError: None does.
    """
    for node in NODES:
        container = examined.container(node)
        info = data_tier.info(data_tier.ask_redis(container, "info") or "") if container else {}
        if container and info.get("role") == "master":
            return container, info
    raise StackError(
        "cannot query Redis: no node accepts writes",
        hint="read alerting/runbooks/RedisDown.md, and run ./ops/stack logs redis (with data-ha redis-1)",
        code=FAILURE,
    )


def count_messages(container: str, lists: list[str]) -> dict[str, int]:
    """Return the number of messages by queue, over all priorities, of at most MOST_QUEUES lists."""
    counted: Counter[str] = Counter()
    for name in sorted(name for name in lists if not name.endswith(REPLIES))[:MOST_QUEUES]:
        counted[name.partition(PRIORITY)[0]] += int(number(ask(container, "llen", name), "LLEN"))
    return dict(counted)


def waiting_tasks(examined: Examined) -> dict[str, int]:
    """Return the task instances that wait, by queue; empty while Postgres does not answer."""
    try:
        queues: dict[str, int] = database.answer(database.primary(examined), WAITING)["queues"]
    except StackError:
        return {}
    return queues


def parse_consumed(text: str, now: float) -> frozenset[str] | None:
    """Return the queues with a recent announcement from an answer to ZRANGE; None if it has none at all."""
    lines = text.splitlines()
    announced = dict(zip(lines[::2], lines[1::2], strict=False))
    if not announced:
        return None
    return frozenset(name for name, at in announced.items() if now - float(at) < CONSUMED_SECONDS)


def clock(broker: Broker) -> Iterator[Finding]:
    """Yield a finding if Redis' clock differs from the host's."""
    yield from other_clock("redis", broker.clock)


def unconsumed_queues(broker: Broker) -> Iterator[Finding]:
    """Yield a finding for each queue with messages or tasks that no worker consumes."""
    if broker.consumed is None:
        return
    for queue in sorted((broker.messages.keys() | broker.tasks.keys()) - broker.consumed):
        messages, tasks = broker.messages.get(queue, 0), broker.tasks.get(queue, 0)
        if not messages and not tasks:
            continue
        fix = f"add {queue} to WORKER_QUEUES in compose/.env, then ./ops/stack up"
        if not tasks:
            fix += (
                f"; or delete the messages: docker exec {broker.container} sh -c 'REDISCLI_AUTH=$(cat "
                f'/run/secrets/redis_operator_password) redis-cli --user operator del "$1"\' sh {shlex.quote(queue)}'
            )
        value = f"{messages} messages, {tasks} tasks wait"
        yield Finding(Urgency.SOON, f"queue {queue}", "no worker consumes it", value, fix)


def orphaned_messages(broker: Broker) -> Iterator[Finding]:
    """Yield a finding if messages of crashed workers are not deleted."""
    if broker.orphaned:
        value = f"{broker.orphaned} messages not acknowledged for over {MESSAGE_SECONDS // 3600} h"
        fix = "./ops/stack logs scheduler shows why no scheduler deletes them; ./ops/stack restart restarts them"
        yield Finding(Urgency.SOON, "redis", "orphaned messages", value, fix)


def memory(broker: Broker) -> Iterator[Finding]:
    """Yield a finding if Redis is near its limit."""
    used, limit = int(broker.info.get("used_memory", 0)), int(broker.info.get("maxmemory", 0))
    if limit and (urgency := urgency_above(used / limit, MEMORY_SOON, MEMORY_URGENT)):
        value = f"{used / limit:.0%} of maxmemory; at 100% no task reaches a worker"
        yield Finding(urgency, "redis", "memory nearly used up", value, "read alerting/runbooks/RedisMemory.md")


def persistence(broker: Broker) -> Iterator[Finding]:
    """Yield a finding if Redis does not write its append-only file."""
    if broker.info.get("aof_enabled") != "1" or broker.info.get("aof_last_write_status", "ok") != "ok":
        value = "a crash loses the queued tasks"
        fix = "read alerting/runbooks/RedisPersistence.md"
        yield Finding(Urgency.URGENT, "redis", "append-only file not written", value, fix)
