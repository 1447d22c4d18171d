"""The drills: which fault strikes whom, and what must then be true."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ops.drills.faults import FaultKind

Measure = Literal["interruption", "after return", "run again"]
"""What recovery is: the longest gap in the stream of short tasks from the fault on; the same from when the fault is
taken back on; or how long the victim's own tasks took to begin anew elsewhere."""


Role = Literal["primary", "replica"]


@dataclass(frozen=True)
class Victim:
    """Whom it strikes.

    Attributes:
        service: in compose; with a role, what the names of its nodes begin with (`patroni`, `redis`).
        count: so many of its instances, the oldest first; None for all.
        role: only the nodes of the replicated data tier that have it when the fault strikes.
    """

    service: str
    count: int | None = 1
    role: Role | None = None

    @property
    def named(self) -> str:
        """For people."""
        which = f"{self.service} {self.role}" if self.role else self.service
        return f"all of {which}" if self.count is None else f"{self.count} {which}"

    @property
    def needs(self) -> str:
        """A service that is there where this can be struck."""
        return f"{self.service}-1" if self.role else self.service


@dataclass(frozen=True)
class Drill:
    """One fault and its promise.

    Attributes:
        name: on the command line.
        victims: struck at once.
        fault: how.
        hold: seconds until the fault is taken back.
        measure: what recovery means here.
        deadline: seconds for the recovery.
        whole_again: seconds from the end of the fault until every service is healthy.
        own_attempts: whether the attempts that ran in a victim may be lost; no others ever may.
        alert: the alert that people must get, and its end; None when none may come for it.
    """

    name: str
    victims: tuple[Victim, ...]
    fault: FaultKind
    hold: float
    measure: Measure
    deadline: float
    whole_again: float = 120.0
    own_attempts: bool = False
    alert: str | None = None

    @property
    def services(self) -> tuple[str, ...]:
        """Those that must be there."""
        return tuple(victim.needs for victim in self.victims)

    @property
    def sentence(self) -> str:
        """What happens, for people."""
        whom = " + ".join(victim.named for victim in self.victims)
        held = f" for {self.hold:.0f} s" if self.hold else ""
        return f"{self.fault} {whom}{held}"


def one(service: str) -> tuple[Victim, ...]:
    """One instance of a service."""
    return (Victim(service),)


def primary(of: str) -> tuple[Victim, ...]:
    """The primary of the replicated Postgres (`patroni`) or Redis (`redis`)."""
    return (Victim(of, role="primary"),)


def replica(of: str) -> tuple[Victim, ...]:
    """A replica of it."""
    return (Victim(of, role="replica"),)


def every(service: str) -> tuple[Victim, ...]:
    """All instances of a service."""
    return (Victim(service, None),)


NOT_NOTICED = 5.0
"""Seconds: an interruption that short is the stream's own breath and a retry or two."""

DRILLS: tuple[Drill, ...] = (
    Drill("scheduler-crash", one("scheduler"), "crash", 0, "interruption", NOT_NOTICED),
    Drill("scheduler-frozen", one("scheduler"), "freeze", 30, "interruption", NOT_NOTICED),
    Drill("scheduler-gone", one("scheduler"), "stop", 90, "interruption", NOT_NOTICED, alert="AirflowComponentDown"),
    Drill("schedulers-crash", every("scheduler"), "crash", 0, "interruption", 60),
    Drill("api-server-crash", one("api-server"), "crash", 0, "interruption", NOT_NOTICED),
    Drill("execution-api-crash", one("execution-api"), "crash", 0, "interruption", NOT_NOTICED),
    Drill("execution-api-frozen", one("execution-api"), "freeze", 30, "interruption", 10),
    Drill("gateway-crash", one("gateway"), "crash", 0, "interruption", NOT_NOTICED),
    Drill("worker-crash", one("worker"), "crash", 0, "run again", 45, own_attempts=True),
    Drill("worker-cut", one("worker"), "cut", 30, "interruption", NOT_NOTICED),
    Drill("worker-slow", one("worker"), "slow", 30, "interruption", 10),
    Drill("workers-crash", every("worker"), "crash", 0, "run again", 45, own_attempts=True),
    Drill("triggerer-crash", one("triggerer"), "crash", 0, "interruption", NOT_NOTICED),
    Drill("dag-processor-crash", one("dag-processor"), "crash", 0, "interruption", NOT_NOTICED),
    Drill("redis-crash", one("redis"), "crash", 0, "interruption", 30),
    Drill("redis-gone", one("redis"), "kill", 60, "after return", 30, alert="RedisDown"),
    Drill("postgres-crash", one("postgres"), "crash", 0, "interruption", 30),
    Drill("postgres-gone", one("postgres"), "kill", 60, "after return", 30, alert="PostgresDown"),
    Drill("statsd-exporter-frozen", one("statsd-exporter"), "freeze", 30, "interruption", NOT_NOTICED),
    Drill("otel-collector-frozen", one("otel-collector"), "freeze", 30, "interruption", NOT_NOTICED),
    Drill("prometheus-crash", one("prometheus"), "crash", 0, "interruption", NOT_NOTICED),
    # The profile data-ha.
    Drill("postgres-primary-crash", primary("patroni"), "crash", 0, "interruption", 20),
    Drill("postgres-primary-gone", primary("patroni"), "kill", 45, "interruption", 30),
    Drill("postgres-primary-frozen", primary("patroni"), "freeze", 45, "interruption", 30),
    Drill("postgres-primary-cut", primary("patroni"), "cut", 45, "interruption", 30),
    Drill("postgres-replica-crash", replica("patroni"), "crash", 0, "interruption", NOT_NOTICED),
    Drill("etcd-crash", one("etcd-1"), "crash", 0, "interruption", NOT_NOTICED),
    Drill("two-etcd-frozen", (Victim("etcd-1"), Victim("etcd-2")), "freeze", 30, "interruption", NOT_NOTICED),
    Drill("redis-primary-crash", primary("redis"), "crash", 0, "interruption", 15),
    Drill("redis-primary-gone", primary("redis"), "kill", 45, "interruption", 15),
    Drill("redis-primary-frozen", primary("redis"), "freeze", 30, "interruption", 15),
    Drill("redis-replica-crash", replica("redis"), "crash", 0, "interruption", NOT_NOTICED),
    Drill("sentinel-crash", one("sentinel-1"), "crash", 0, "interruption", NOT_NOTICED),
    # What a lost machine takes with it.
    Drill(
        "host",
        (*primary("patroni"), *primary("redis"), *one("scheduler"), *one("worker")),
        "crash",
        0,
        "run again",
        60,
        own_attempts=True,
    ),
)
