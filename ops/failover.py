"""A planned failover of Postgres or Redis in the replicated data tier (profile `data-ha`)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ops.data_tier import (
    CLUSTER,
    PATRONI,
    Member,
    ask,
    ask_redis,
    execute,
    is_healthy,
    last_line,
    members,
    one_primary,
    running,
)
from ops.errors import FAILURE, StackError
from ops.services import POSTGRES_NODES, REDIS_NODES, SENTINELS

if TYPE_CHECKING:
    from collections.abc import Callable

    from ops.data_tier import Role

POLL_SECONDS = 0.5
SWITCH_SECONDS = 60.0
"""A planned switch, the old primary's return as a replica included, takes some seconds."""
PAUSE_MILLISECONDS = 8000
"""How long the old Redis may hold back writes in a planned switch; it ends with the switch."""


def switch_postgres(name: str, report: Callable[[str], None]) -> None:
    """Makes the replica of Postgres the primary, and waits until the old primary follows it.

    Raises:
        StackError: There is no replica that has everything, or the switch did not come about.
    """
    old, new = switch_partners(members(name), POSTGRES_NODES, wanted="sync replica")
    containers = running(name)
    started = time.monotonic()
    order = (*PATRONI, "switchover", CLUSTER, "--leader", old, "--candidate", new, "--force")
    said = execute(containers[old], *order)
    if said.returncode != 0:
        raise StackError(
            f"Patroni did not switch: {last_line(said.stdout + said.stderr)}",
            where=f"{old} to {new}",
            hint=f"./ops/stack status shows both; ./ops/stack logs {new} has more",
            code=FAILURE,
        )
    served = ("psql", "-U", "postgres", "-Atc", "SELECT pg_is_in_recovery()")
    wait_until(lambda: ask(containers[new], *served) == "f", f"{new} serves as the primary", started, report)
    in_sync = Member(service=old, role="sync replica", state="streaming", lag_bytes=0)

    def rejoined() -> bool:
        return any({**found, "lag_bytes": 0} == in_sync for found in members(name))

    wait_until(rejoined, f"{old} follows it, in sync", started, report)


def switch_redis(name: str, report: Callable[[str], None]) -> None:
    """Lets the Sentinels make a replica of Redis the primary, and waits until the others follow it.

    The old primary takes no writes meanwhile, or what it took between the two would be lost.

    Raises:
        StackError: There is no replica that follows the primary, or the switch did not come about.
    """
    old, _ = switch_partners(members(name), REDIS_NODES, wanted="replica")
    containers = running(name)
    sentinel = next((containers[node] for node in SENTINELS if node in containers), None)
    if sentinel is None:
        raise StackError("no Sentinel runs", hint="./ops/stack up starts what is missing")
    started = time.monotonic()
    ask_redis(containers[old], "client", "pause", str(PAUSE_MILLISECONDS), "write")
    try:
        answer = ask_redis(sentinel, "-p", "26379", "sentinel", "failover", CLUSTER)
        if answer != "OK":
            raise StackError(
                f"the Sentinels did not switch: {answer or 'no answer'}",
                where=old,
                hint="./ops/stack status shows the nodes; a switch that has just been is followed by a pause of 20 s",
                code=FAILURE,
            )

        def of_redis() -> list[Member]:
            return [found for found in members(name) if found["service"] in REDIS_NODES]

        def new() -> str | None:
            other = (one["service"] for one in of_redis() if one["role"] == "primary" and one["service"] != old)
            return next(other, None)

        def followed() -> bool:
            return all(is_healthy(found) for found in of_redis()) and one_primary(of_redis())

        wait_until(lambda: new() is not None, "another Redis is the primary", started, report)
        # The Sentinels tell the old one some seconds later; its clients need not wait for that.
        ask_redis(containers[old], "replicaof", str(new()), "6379")
        ask_redis(containers[old], "client", "unpause")
        ask_redis(containers[old], "client", "kill", "type", "normal")
        wait_until(followed, "the others follow it", started, report)
    finally:
        ask_redis(containers[old], "client", "unpause")


def switch_partners(found: list[Member], nodes: tuple[str, ...], wanted: Role) -> tuple[str, str]:
    """The primary, and a replica that can take over.

    Raises:
        StackError: One of them is not there.
    """
    of = [member for member in found if member["service"] in nodes]
    primary = next((member["service"] for member in of if member["role"] == "primary" and is_healthy(member)), None)
    replica = next((member["service"] for member in of if member["role"] == wanted and is_healthy(member)), None)
    if primary is None or replica is None:
        states = ", ".join(f"{member['service']} is {member['role']}, {member['state']}" for member in of)
        missing = "primary" if primary is None else f"{wanted} that could take over"
        raise StackError(f"there is no {missing}", where=states, hint="wait until ./ops/stack status shows it, or up")
    return primary, replica


def wait_until(condition: Callable[[], bool], what: str, started: float, report: Callable[[str], None]) -> None:
    """Waits for a step of a switch, and says how long after its start it came.

    Raises:
        StackError: It did not come.
    """
    while not condition():
        if time.monotonic() - started > SWITCH_SECONDS:
            raise StackError(
                f"not so after {SWITCH_SECONDS:.0f} s: {what}",
                hint="./ops/stack status shows the nodes; the switch may still come about",
                code=FAILURE,
            )
        time.sleep(POLL_SECONDS)
    report(f"{what}, after {time.monotonic() - started:.1f} s")
