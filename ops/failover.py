"""A planned failover of Postgres or Redis in the replicated data tier (profile `data-ha`)."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from ops.data_tier import (
    CLUSTER,
    PATRONI,
    Member,
    ask,
    ask_redis,
    execute,
    has_one_primary,
    is_healthy,
    last_line,
    members,
    running,
)
from ops.errors import FAILURE, StackError
from ops.services import POSTGRES_NODES, REDIS_NODES, SENTINELS
from ops.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from ops.data_tier import Role

POLL_SECONDS = 0.5
SWITCH_SECONDS = 60.0
"""Timeout of a planned failover. It takes a few seconds, including the old primary's return as a replica."""
PAUSE_MILLISECONDS = 8000
"""The longest time that the old Redis primary holds back writes; the failover ends it earlier."""


def switch_postgres(name: str, report: Callable[[str], None]) -> None:
    """Promote the synchronous replica of Postgres, and wait until the old primary follows it in sync.

    Args:
        name: The compose project's name.
        report: Prints a line of progress.

    Raises:
        StackError: No replica is in sync, or the failover failed.
    """
    old, new = switch_partners(members(name), POSTGRES_NODES, replica_role="sync replica")
    containers = running(name)
    started = time.monotonic()
    switchover = (*PATRONI, "switchover", CLUSTER, "--leader", old, "--candidate", new, "--force")
    result = execute(containers[old], *switchover)
    if result.returncode != 0:
        raise StackError(
            f"cannot fail over Postgres: Patroni reports: {last_line(result.stdout + result.stderr)}",
            where=f"{old} to {new}",
            hint=f"run ./ops/stack status, then ./ops/stack logs {new}",
            code=FAILURE,
        )
    in_recovery = ("psql", "-U", "postgres", "-Atc", "SELECT pg_is_in_recovery()")
    wait_for_step(lambda: ask(containers[new], *in_recovery) == "f", f"{new} is the primary", started, report)
    in_sync = Member(service=old, role="sync replica", state="streaming", lag_bytes=0)

    def has_rejoined() -> bool:
        return any({**member, "lag_bytes": 0} == in_sync for member in members(name))

    wait_for_step(has_rejoined, f"{old} follows {new} in sync", started, report)


def switch_redis(name: str, report: Callable[[str], None]) -> None:
    """Make the Sentinels promote a replica of Redis, and wait until the other nodes follow it.

    The old primary accepts no writes during the failover, because it would lose them.

    Args:
        name: The compose project's name.
        report: Prints a line of progress.

    Raises:
        StackError: No replica follows the primary, or the failover failed.
    """
    old, _ = switch_partners(members(name), REDIS_NODES, replica_role="replica")
    containers = running(name)
    sentinel = next((containers[node] for node in SENTINELS if node in containers), None)
    if sentinel is None:
        raise StackError("cannot fail over Redis: no Sentinel runs", hint="run ./ops/stack up")
    started = time.monotonic()
    ask_redis(containers[old], "client", "pause", str(PAUSE_MILLISECONDS), "write")
    try:
        answer = ask_redis(sentinel, "-p", "26379", "sentinel", "failover", CLUSTER)
        if answer != "OK":
            raise StackError(
                f"cannot fail over Redis: the Sentinels report: {answer or 'no answer'}",
                where=old,
                hint="run ./ops/stack status; after a recent failover wait 20 s",
                code=FAILURE,
            )
        wait_for_step(lambda: new_redis_primary(name, old) is not None, "a replica is the primary", started, report)
        # The Sentinels reconfigure the old primary some seconds later; doing it here spares its clients that wait.
        ask_redis(containers[old], "replicaof", str(new_redis_primary(name, old)), "6379")
        ask_redis(containers[old], "client", "unpause")
        ask_redis(containers[old], "client", "kill", "type", "normal")
        wait_for_step(partial(follow_one_primary, name), "the other nodes follow it", started, report)
    finally:
        ask_redis(containers[old], "client", "unpause")


def redis_nodes(name: str) -> list[Member]:
    """Return the Redis nodes of a compose project."""
    return [member for member in members(name) if member["service"] in REDIS_NODES]


def new_redis_primary(name: str, old: str) -> str | None:
    """Return the Redis node that is a primary besides the old one; None while there is none."""
    primaries = (member["service"] for member in redis_nodes(name) if member["role"] == "primary")
    return next((service for service in primaries if service != old), None)


def follow_one_primary(name: str) -> bool:
    """Return whether every Redis node is healthy and exactly one is the primary."""
    nodes = redis_nodes(name)
    return all(map(is_healthy, nodes)) and has_one_primary(nodes)


def switch_partners(tier: list[Member], nodes: tuple[str, ...], replica_role: Role) -> tuple[str, str]:
    """Return the primary among the nodes, and a healthy replica of the given role that can take over.

    Raises:
        StackError: There is no healthy primary, or no such replica.
    """
    candidates = [member for member in tier if member["service"] in nodes and is_healthy(member)]
    primary = next((member["service"] for member in candidates if member["role"] == "primary"), None)
    replica = next((member["service"] for member in candidates if member["role"] == replica_role), None)
    if primary is None or replica is None:
        states = ", ".join(
            f"{member['service']} is {member['role']}, {member['state']}"
            for member in tier
            if member["service"] in nodes
        )
        missing = "primary" if primary is None else replica_role
        raise StackError(
            f"cannot fail over: there is no healthy {missing}",
            where=states,
            hint="wait until ./ops/stack status shows it, or run ./ops/stack up",
        )
    return primary, replica


def wait_for_step(condition: Callable[[], bool], what: str, started: float, report: Callable[[str], None]) -> None:
    """Wait for a step of a failover, and report its seconds since the start.

    Args:
        condition: Whether the step is complete.
        what: The condition as a clause.
        started: Start of the failover, on the monotonic clock; the timeout counts from it.
        report: Prints a line of progress.

    Raises:
        StackError: The step is not complete SWITCH_SECONDS after the start.
    """
    remaining = max(0.0, SWITCH_SECONDS - (time.monotonic() - started))
    hint = "run ./ops/stack status: the failover may still complete"
    wait(condition, remaining, what, report, hint=hint, poll_seconds=POLL_SECONDS)
    report(f"{what}, after {time.monotonic() - started:.1f} s")
