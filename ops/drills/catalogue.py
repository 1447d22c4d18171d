"""The drills: which fault strikes whom, and what must then be true.

Two faults cannot be made honestly here. A full disk: all volumes are on Docker's own disk, which would be full for
everything at once; a small one for Redis or Postgres would be another stack than the one that users run (DiskFilling
warns long before). A clock that jumps: containers have the machine's clock, and only that could be set.

Slow is what workers and the two primaries are made; where the kernel cannot (faults.py), it is left out and said so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from ops.drills.faults import FaultKind

Measure = Literal["interruption", "after return", "run again"]
"""What recovery is: the longest gap in the stream of short tasks from the fault on; the same from when the fault is
taken back on; or how long the victim's own tasks took to begin anew elsewhere."""

Role = Literal["primary", "replica", "node"]
"""Of the replicated data tier; a node is either."""
SHOWN: Final = {"patroni": "Postgres", "postgres": "Postgres", "redis": "Redis"}
"""What people call them."""


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
        shown = SHOWN.get(self.service, self.service)
        if self.role == "node":
            return f"all of {shown}"
        if self.role:
            return f"{'the' if self.role == 'primary' else 'a'} {shown} {self.role}"
        if self.service in SHOWN:
            return f"the single {shown}"
        if self.service[-1].isdigit():
            return self.service
        return f"all {shown}s" if self.count is None else f"one {shown}"

    @property
    def needs(self) -> str:
        """A service that is there where this can be struck."""
        return f"{self.service}-1" if self.role else self.service


@dataclass(frozen=True)
class Drill:
    """One fault and its promise.

    Attributes:
        name: on the command line.
        victims: struck at once; none where the fault is the machine's.
        fault: how.
        hold: seconds until the fault is taken back.
        measure: what recovery means here.
        deadline: seconds for the recovery.
        whole_again: seconds from the end of the fault until every service is healthy, and every replica in sync.
        own_attempts: whether the attempts that ran in a victim may be lost; no others ever may.
        alert: the alert that people must get, and its end; None when none may come for it.
        may_alert: alerts that may come too, because what they tell is so.
        behind: frozen before, until the primary goes on without them, and thawed when it has been struck: what they
            lack was committed, and none of them may take over.
        laden: whether the Redis that is struck has much in its file, and answers only that it is loading for a while.
        only_long: whether the load is long tasks alone: no short one tells early that a worker is away.
        no_restarts: whether no container may end or run out of memory meanwhile.
        in_every_run: whether `./ops/stack test` holds it; all are held every night.
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
    may_alert: tuple[str, ...] = ()
    behind: tuple[Victim, ...] = ()
    laden: bool = False
    only_long: bool = False
    no_restarts: bool = False
    in_every_run: bool = False

    @property
    def services(self) -> tuple[str, ...]:
        """Those that must be there."""
        return tuple(victim.needs for victim in self.victims)

    @property
    def of_single_nodes(self) -> bool:
        """Whether it strikes the Postgres or Redis of the profile `data`; all others can be held with `data-ha`."""
        return any(victim.service in SHOWN and not victim.role for victim in self.victims)

    @property
    def primaries_stay(self) -> bool:
        """Whether no replica may take over: no primary is struck, or only made slow, or the replica lacks commits."""
        struck = any(victim.role in ("primary", "node") for victim in self.victims)
        return self.fault == "slow" or bool(self.behind) or not struck

    @property
    def sentence(self) -> str:
        """What happens, for people."""
        whom = " + ".join(victim.named for victim in self.victims) or "the machine"
        held = f" for {self.hold:.0f} s" if self.hold else ""
        behind = "".join(f", {victim.named} behind" for victim in self.behind)
        laden = " with much to load" if self.laden else ""
        return f"{self.fault} {whom}{laden}{held}{behind}{', only long tasks' if self.only_long else ''}"


def one(service: str) -> tuple[Victim, ...]:
    """One instance of a service."""
    return (Victim(service),)


def primary(of: str) -> tuple[Victim, ...]:
    """The primary of the replicated Postgres (`patroni`) or Redis (`redis`)."""
    return (Victim(of, role="primary"),)


def replica(of: str) -> tuple[Victim, ...]:
    """A replica of it."""
    return (Victim(of, role="replica"),)


def nodes(of: str) -> tuple[Victim, ...]:
    """All of its nodes."""
    return (Victim(of, None, "node"),)


def every(service: str) -> tuple[Victim, ...]:
    """All instances of a service."""
    return (Victim(service, None),)


LOST_PRIMARY: Final = 35.0
"""Seconds without a Postgres primary whose machine is away or frozen: Patroni takes 20 at least to call it lost (its
shortest ttl), then asks the others, promotes, and clients connect anew. Seen: 24 to 28."""
NOT_NOTICED: Final = 5.0
"""Seconds: an interruption that short is the stream's own breath and a retry or two."""
RUN_AGAIN: Final = 45.0
"""Seconds until what ran in a lost worker runs elsewhere: its heartbeats are missed for 35, then it is queued anew."""
OF_A_HOST: Final = 60.0
"""The same where the database and the broker change over meanwhile."""
PAST_A_TOKEN: Final = 1260.0
"""Seconds after which no task's token is accepted any more: it lives for 600, and for 570 of leeway."""
TASKS_LOST: Final = ("AirflowTasksLost",)
"""Three or more of a quarter of an hour are told, and a worker has as many."""


def run_again(
    name: str,
    victims: tuple[Victim, ...],
    fault: FaultKind,
    hold: float = 0,
    *,
    deadline: float = RUN_AGAIN,
    only_long: bool = False,
    may_alert: tuple[str, ...] = TASKS_LOST,
    in_every_run: bool = False,
) -> Drill:
    """A drill that a worker does not survive: what ran in it runs again elsewhere."""
    return Drill(
        name,
        victims,
        fault,
        hold,
        "run again",
        deadline,
        own_attempts=True,
        may_alert=may_alert,
        only_long=only_long,
        in_every_run=in_every_run,
    )


STARVATION_MAY_ALERT: Final = (
    "AirflowCanaryLate",
    "AirflowCanaryStale",
    "AirflowComponentDown",
    "AirflowComponentGone",
    "AirflowDagOverdue",
    "AirflowDagProcessingSlow",
    "AirflowErrorBudgetBurn",
    "AirflowMonitoringStale",
    "AirflowQueueNotConsumed",
    "AirflowQueuedTooLong",
    "AirflowSchedulerSlow",
    "AirflowSchedulingDelay",
    "AirflowTasksSuspended",
    "AlertmanagerDown",
    "ApiErrors",
    "ApiSlow",
    "GatewayDown",
    "MetricsDropped",
    "PostgresDown",
    "RedisDown",
    "TargetDown",
)
"""Late, or not answering in time, is so where there is no CPU. That anything was lost or replaced may not be told."""

DRILLS: tuple[Drill, ...] = (
    Drill("scheduler-crash", one("scheduler"), "crash", 0, "interruption", NOT_NOTICED),
    Drill("scheduler-stop", one("scheduler"), "stop", 60, "interruption", NOT_NOTICED),
    Drill("scheduler-frozen", one("scheduler"), "freeze", 30, "interruption", NOT_NOTICED),
    # The monitoring DAG tells of one that gives no sign for two minutes.
    Drill(
        "scheduler-frozen-120",
        one("scheduler"),
        "freeze",
        120,
        "interruption",
        NOT_NOTICED,
        may_alert=("AirflowComponentDown",),
    ),
    Drill("scheduler-cut", one("scheduler"), "cut", 30, "interruption", NOT_NOTICED),
    Drill("schedulers-crash", every("scheduler"), "crash", 0, "interruption", 60),
    Drill("schedulers-gone", every("scheduler"), "kill", 60, "after return", 60, alert="AirflowComponentGone"),
    Drill("api-server-crash", one("api-server"), "crash", 0, "interruption", NOT_NOTICED),
    Drill("api-server-stop", one("api-server"), "stop", 30, "interruption", NOT_NOTICED),
    Drill("api-server-frozen", one("api-server"), "freeze", 30, "interruption", NOT_NOTICED),
    Drill("execution-api-crash", one("execution-api"), "crash", 0, "interruption", NOT_NOTICED),
    Drill("execution-api-stop", one("execution-api"), "stop", 30, "interruption", NOT_NOTICED),
    # The gateway finds out by its own checks, some seconds apart.
    Drill("execution-api-frozen", one("execution-api"), "freeze", 30, "interruption", 10),
    Drill("gateway-crash", one("gateway"), "crash", 0, "interruption", NOT_NOTICED),
    # There is one gateway: while it is frozen nothing begins, and nothing is lost.
    Drill("gateway-frozen", one("gateway"), "freeze", 30, "after return", 10),
    run_again("worker-crash", one("worker"), "crash"),
    run_again("worker-crash-long", one("worker"), "crash", only_long=True),
    # It finishes what it has; the fault itself lasts that long.
    Drill("worker-stop", one("worker"), "stop", 30, "interruption", NOT_NOTICED),
    # Frozen or cut off for less than the heartbeats' patience: what is in it goes on. The stream has as many tasks in
    # the other worker; now and then all of them are here, and it waits as long as they do.
    Drill("worker-frozen", one("worker"), "freeze", 30, "interruption", 40),
    Drill("worker-cut", one("worker"), "cut", 30, "interruption", 40),
    Drill("worker-slow", one("worker"), "slow", 30, "interruption", 10),
    # For longer: its tasks run elsewhere, and it must not go on with them when it thaws.
    run_again("worker-frozen-120", one("worker"), "freeze", 120),
    # For longer than a token lives, 21 minutes each: what ran in it is ended, and its slots are free. One that is
    # frozen is refused (403) when it thaws; in one that is cut off the longest suspension is over before.
    run_again(
        "worker-frozen-1260",
        one("worker"),
        "freeze",
        PAST_A_TOKEN,
        may_alert=(*TASKS_LOST, "AirflowComponentDown"),
    ),
    run_again("worker-cut-1260", one("worker"), "cut", PAST_A_TOKEN, may_alert=(*TASKS_LOST, "AirflowComponentDown")),
    run_again("workers-crash", every("worker"), "crash"),
    Drill("triggerer-crash", one("triggerer"), "crash", 0, "interruption", NOT_NOTICED),
    Drill("triggerer-stop", one("triggerer"), "stop", 0, "interruption", NOT_NOTICED),
    Drill(
        "triggerer-frozen-120",
        one("triggerer"),
        "freeze",
        120,
        "interruption",
        NOT_NOTICED,
        alert="AirflowComponentGone",
    ),
    Drill("dag-processor-crash", one("dag-processor"), "crash", 0, "interruption", NOT_NOTICED),
    Drill("dag-processor-stop", one("dag-processor"), "stop", 0, "interruption", NOT_NOTICED),
    Drill(
        "dag-processor-frozen-120",
        one("dag-processor"),
        "freeze",
        120,
        "interruption",
        NOT_NOTICED,
        alert="AirflowComponentGone",
    ),
    # Who only watches.
    Drill("statsd-exporter-crash", one("statsd-exporter"), "crash", 0, "interruption", NOT_NOTICED),
    Drill("statsd-exporter-frozen", one("statsd-exporter"), "freeze", 30, "interruption", NOT_NOTICED),
    Drill("otel-collector-crash", one("otel-collector"), "crash", 0, "interruption", NOT_NOTICED),
    Drill("otel-collector-frozen", one("otel-collector"), "freeze", 30, "interruption", NOT_NOTICED),
    Drill("prometheus-crash", one("prometheus"), "crash", 0, "interruption", NOT_NOTICED),
    Drill("prometheus-frozen", one("prometheus"), "freeze", 30, "interruption", NOT_NOTICED),
    Drill("alertmanager-crash", one("alertmanager-1"), "crash", 0, "interruption", NOT_NOTICED),
    Drill("alertmanager-frozen", one("alertmanager-1"), "freeze", 30, "interruption", NOT_NOTICED),
    # The profile data.
    Drill("redis-crash", one("redis"), "crash", 0, "interruption", 30),
    Drill("redis-gone", one("redis"), "kill", 60, "after return", 30, alert="RedisDown"),
    Drill("postgres-crash", one("postgres"), "crash", 0, "interruption", 30),
    Drill("postgres-gone", one("postgres"), "kill", 60, "after return", 30, alert="PostgresDown"),
    # The profile data-ha.
    Drill("postgres-primary-crash", primary("patroni"), "crash", 0, "interruption", 20),
    # It hands over before it goes.
    Drill("postgres-primary-stop", primary("patroni"), "stop", 30, "interruption", 10),
    Drill("postgres-primary-gone", primary("patroni"), "kill", 45, "interruption", LOST_PRIMARY),
    Drill("postgres-primary-frozen", primary("patroni"), "freeze", 45, "interruption", LOST_PRIMARY, in_every_run=True),
    # Two minutes without a replica are told.
    Drill(
        "postgres-primary-frozen-120",
        primary("patroni"),
        "freeze",
        120,
        "interruption",
        LOST_PRIMARY,
        may_alert=("PostgresReplicaMissing",),
    ),
    Drill("postgres-primary-cut", primary("patroni"), "cut", 45, "interruption", LOST_PRIMARY),
    # Each statement takes 200 ms, and a task takes some dozens: that alone must move no primary.
    Drill("postgres-primary-slow", primary("patroni"), "slow", 30, "interruption", 60),
    Drill("postgres-replica-crash", replica("patroni"), "crash", 0, "interruption", NOT_NOTICED),
    Drill("postgres-replica-gone", replica("patroni"), "kill", 45, "interruption", NOT_NOTICED),
    # Commits wait for it until the primary gives it up, after three seconds and a round of Patroni's.
    Drill("postgres-replica-frozen", replica("patroni"), "freeze", 30, "interruption", 10),
    Drill("postgres-nodes-gone", nodes("patroni"), "kill", 60, "after return", 30, alert="PostgresDown"),
    # The replica is back before the primary, without the last commits: it must wait for it.
    Drill(
        "postgres-replica-behind",
        primary("patroni"),
        "kill",
        45,
        "after return",
        30,
        behind=replica("patroni"),
        may_alert=("PostgresDown",),
    ),
    Drill("etcd-crash", one("etcd-1"), "crash", 0, "interruption", NOT_NOTICED),
    Drill("etcd-frozen", one("etcd-1"), "freeze", 30, "interruption", NOT_NOTICED),
    Drill("two-etcd-frozen", (Victim("etcd-1"), Victim("etcd-2")), "freeze", 30, "interruption", NOT_NOTICED),
    Drill("redis-primary-crash", primary("redis"), "crash", 0, "interruption", 15),
    # As after some ten thousand tasks.
    Drill("redis-primary-crash-laden", primary("redis"), "crash", 0, "interruption", 15, laden=True),
    Drill("redis-primary-stop", primary("redis"), "stop", 30, "interruption", 15),
    Drill("redis-primary-gone", primary("redis"), "kill", 45, "interruption", 15),
    Drill("redis-primary-frozen", primary("redis"), "freeze", 30, "interruption", 15),
    Drill(
        "redis-primary-frozen-120",
        primary("redis"),
        "freeze",
        120,
        "interruption",
        15,
        may_alert=("RedisReplicaMissing",),
    ),
    Drill("redis-primary-cut", primary("redis"), "cut", 45, "interruption", 15),
    Drill("redis-primary-slow", primary("redis"), "slow", 30, "interruption", 30),
    Drill("redis-replica-crash", replica("redis"), "crash", 0, "interruption", NOT_NOTICED),
    Drill("redis-replica-frozen", replica("redis"), "freeze", 30, "interruption", NOT_NOTICED),
    Drill("redis-nodes-gone", nodes("redis"), "kill", 60, "after return", 30, alert="RedisDown"),
    Drill("sentinel-crash", one("sentinel-1"), "crash", 0, "interruption", NOT_NOTICED),
    Drill("sentinel-frozen", one("sentinel-1"), "freeze", 30, "interruption", NOT_NOTICED),
    # Everything is slow, nothing is restarted, and all goes on when the CPU is back.
    Drill(
        "machine-starved",
        (),
        "starve",
        300,
        "after return",
        30,
        may_alert=STARVATION_MAY_ALERT,
        no_restarts=True,
    ),
    # What really comes together.
    Drill("primaries-gone", (*primary("patroni"), *primary("redis")), "kill", 45, "interruption", LOST_PRIMARY),
    run_again(
        "host",
        (*primary("patroni"), *primary("redis"), *one("scheduler"), *one("worker")),
        "crash",
        deadline=OF_A_HOST,
        in_every_run=True,
    ),
    # All that a lost machine takes with it, as if the parts were on three.
    run_again(
        "host-gone",
        (
            *primary("patroni"),
            *primary("redis"),
            *one("etcd-1"),
            *one("sentinel-1"),
            *one("scheduler"),
            *one("api-server"),
            *one("execution-api"),
            *one("worker"),
        ),
        "kill",
        60,
        deadline=OF_A_HOST,
    ),
)
