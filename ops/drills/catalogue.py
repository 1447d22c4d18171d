"""The drills: the fault, the targets and the promises of each.

Two faults have no drill. A full disk: all volumes share Docker's disk, so every service would fail at once, and a small
disk for Redis or Postgres would make another stack than the one that users run (DiskFilling fires long before). A clock
jump: containers share the machine's clock.

`slow` has workers and the two primaries as targets. Where the kernel does not support `slow` (faults.py), the
drill is skipped and reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from ops.drills.faults import FaultKind

NORMAL_JITTER: Final = 5.0
"""Longest interruption, in seconds, that is normal jitter of the short tasks plus one or two retries."""
PRIMARY_FAILOVER: Final = 35.0
"""Longest failover, in seconds, from a Postgres primary that is down or frozen. Patroni declares it lost after at least
20 s (its shortest ttl), polls the other nodes and promotes one; then clients reconnect. Measured: 24 to 28 s."""
WORKER_RERUN: Final = 45.0
"""Seconds until the tasks of a lost worker run elsewhere: 35 s without heartbeats, then they are queued again."""
HOST_RERUN: Final = 60.0
"""WORKER_RERUN while the database and the broker fail over too."""
TOKEN_EXPIRED: Final = 1260.0
"""Seconds after which no task token is accepted: it is valid for 600 s, plus 570 s of leeway."""
TASKS_LOST: Final = ("AirflowTasksLost",)
"""Three or more lost tasks in 15 minutes fire it, and a worker runs that many."""
STARVATION_ALERTS: Final = (
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
"""Without CPU, components are late or do not answer in time. No alert may report that anything was lost or replaced."""

LOAD: Final = {"short": 150, "short_seconds": 1.0, "long": 4, "long_seconds": 45.0}
"""Parameters of the load's DAG (drill_dag.py): how many short and long tasks, and how long each takes."""
REPLACEMENT_LOAD: Final = {"short": 800, "short_seconds": 2.0, "long": 4, "long_seconds": 90.0}
"""The load while containers are replaced twice; for all of Airflow that takes five to six minutes on 2 cores."""
LONG_TASKS: Final = 12
"""Long tasks of a load without short ones: some on each worker, with free slots for those that run again."""

Measure = Literal["interruption", "after revert", "rerun"]
"""How recovery is measured.

`interruption`: the longest gap between completions of short tasks after the fault. `after revert`: the same, after the
fault is reverted. `rerun`: the time until the target's own tasks run elsewhere; only these drills may lose tries.
"""

Role = Literal["primary", "replica", "node"]
"""A role in the replicated data tier; every member is a `node`."""
DISPLAY_NAMES: Final = {"patroni": "Postgres", "postgres": "Postgres", "redis": "Redis"}


@dataclass(frozen=True)
class Target:
    """Containers that get a fault.

    Attributes:
        service: The compose service. With a role: the prefix of its nodes' names (`patroni`, `redis`).
        count: The number of instances, the oldest first; None for all.
        role: Selects the nodes that have this role when the fault is injected.
    """

    service: str
    count: int | None = 1
    role: Role | None = None

    @property
    def display_name(self) -> str:
        """The target as it is shown in tables, such as `one scheduler` or `the Postgres primary`."""
        name = DISPLAY_NAMES.get(self.service, self.service)
        if self.role == "node":
            return f"all of {name}"
        if self.role:
            return f"{'the' if self.role == 'primary' else 'a'} {name} {self.role}"
        if self.service in DISPLAY_NAMES:
            return f"the single {name}"
        if self.service[-1].isdigit():
            return self.service
        return f"all {name}s" if self.count is None else f"one {name}"

    @property
    def required_service(self) -> str:
        """The compose service that a stack must have for this target."""
        return f"{self.service}-1" if self.role else self.service


@dataclass(frozen=True)
class Drill:
    """One fault and its promises.

    Attributes:
        name: The name on the command line.
        targets: All get the fault at the same time; empty where the target is the machine, or every Airflow container.
        fault: The kind of fault.
        duration: Seconds until the fault is reverted.
        measure: How recovery is measured.
        deadline: Seconds within which it must recover.
        healthy_within: Seconds from the revert until every service is healthy and every replica in sync.
        alert: The alert that must fire and be resolved; None where none must fire.
        allowed_alerts: Alerts that may also fire, because what they report is true.
        lagging: Replicas that are frozen before the fault and unfrozen right after it. They lack commits of the
            primary, so none of them may be promoted.
        large_aof: Whether the Redis target has a large AOF, so that it answers LOADING for a while after a restart.
        long_tasks_only: Whether the load has no short tasks, whose failures would reveal a lost worker early.
        forbids_container_exits: Whether no container may exit or run out of memory during the drill.
        in_every_run: Whether `./ops/stack test` runs it; every drill runs each night.
    """

    name: str
    targets: tuple[Target, ...]
    fault: FaultKind
    duration: float = 0.0
    measure: Measure = "interruption"
    deadline: float = NORMAL_JITTER
    healthy_within: float = 120.0
    alert: str | None = None
    allowed_alerts: tuple[str, ...] = ()
    lagging: tuple[Target, ...] = ()
    large_aof: bool = False
    long_tasks_only: bool = False
    forbids_container_exits: bool = False
    in_every_run: bool = False

    @property
    def required_services(self) -> tuple[str, ...]:
        """The compose services that a stack must have for this drill."""
        return tuple(target.required_service for target in self.targets)

    @property
    def targets_single_nodes(self) -> bool:
        """Whether it needs the Postgres or Redis of the profile `data`; all other drills run with `data-ha`."""
        return any(target.service in DISPLAY_NAMES and not target.role for target in self.targets)

    @property
    def allows_lost_tries(self) -> bool:
        """Whether tries that run on a target may be lost; no other tries ever may."""
        return self.measure == "rerun"

    @property
    def forbids_promotion(self) -> bool:
        """Whether no replica may become primary: the primary stays up, is only slow, or its replica lacks commits."""
        targets_primary = any(target.role in ("primary", "node") for target in self.targets)
        return self.fault == "slow" or bool(self.lagging) or not targets_primary

    @property
    def load(self) -> dict[str, float]:
        """The load's parameters. Where no container goes down, long tasks run for as long as the fault lasts."""
        if self.long_tasks_only:
            return {**LOAD, "short": 0, "long": LONG_TASKS}
        if self.fault == "replace":
            return REPLACEMENT_LOAD
        if self.targets:
            return LOAD
        return {**LOAD, "long_seconds": max(LOAD["long_seconds"], self.duration)}

    @property
    def sentence(self) -> str:
        """The fault in one phrase, such as `freeze one worker for 30 s`."""
        machine = "every Airflow container" if self.fault == "replace" else "the machine"
        targets = " + ".join(target.display_name for target in self.targets) or machine
        parts = (
            f"{self.fault} {targets}",
            " with a large AOF" if self.large_aof else "",
            f" for {self.duration:.0f} s" if self.duration else "",
            *(f", {target.display_name} lagging" for target in self.lagging),
            ", long tasks only" if self.long_tasks_only else "",
        )
        return "".join(parts)


def one_instance(service: str) -> tuple[Target, ...]:
    """Return the oldest instance of a service as targets."""
    return (Target(service),)


def all_instances(service: str) -> tuple[Target, ...]:
    """Return all instances of a service as targets."""
    return (Target(service, None),)


def primary(tier: str) -> tuple[Target, ...]:
    """Return the primary of the replicated Postgres (`patroni`) or Redis (`redis`) as targets."""
    return (Target(tier, role="primary"),)


def replica(tier: str) -> tuple[Target, ...]:
    """Return one replica of the replicated Postgres or Redis as targets."""
    return (Target(tier, role="replica"),)


def all_nodes(tier: str) -> tuple[Target, ...]:
    """Return all nodes of the replicated Postgres or Redis as targets."""
    return (Target(tier, None, "node"),)


DRILLS: tuple[Drill, ...] = (
    Drill("scheduler-crash", one_instance("scheduler"), "crash"),
    Drill("scheduler-stop", one_instance("scheduler"), "stop", 60),
    Drill("scheduler-frozen", one_instance("scheduler"), "freeze", 30),
    # The monitoring DAG reports a component that sends no heartbeat for two minutes.
    Drill(
        "scheduler-frozen-120",
        one_instance("scheduler"),
        "freeze",
        120,
        allowed_alerts=("AirflowComponentDown",),
    ),
    Drill("scheduler-cut", one_instance("scheduler"), "cut", 30),
    Drill("schedulers-crash", all_instances("scheduler"), "crash", 0, "interruption", 60),
    Drill("schedulers-gone", all_instances("scheduler"), "kill", 60, "after revert", 60, alert="AirflowComponentGone"),
    Drill("api-server-crash", one_instance("api-server"), "crash"),
    Drill("api-server-stop", one_instance("api-server"), "stop", 30),
    Drill("api-server-frozen", one_instance("api-server"), "freeze", 30),
    Drill("execution-api-crash", one_instance("execution-api"), "crash"),
    Drill("execution-api-stop", one_instance("execution-api"), "stop", 30),
    # The gateway's health checks run some seconds apart.
    Drill("execution-api-frozen", one_instance("execution-api"), "freeze", 30, "interruption", 10),
    Drill("gateway-crash", one_instance("gateway"), "crash"),
    # There is one gateway: while it is frozen no task starts, and none is lost.
    Drill("gateway-frozen", one_instance("gateway"), "freeze", 30, "after revert", 10),
    Drill("worker-crash", one_instance("worker"), "crash", 0, "rerun", WORKER_RERUN, allowed_alerts=TASKS_LOST),
    Drill(
        "worker-crash-long",
        one_instance("worker"),
        "crash",
        0,
        "rerun",
        WORKER_RERUN,
        allowed_alerts=TASKS_LOST,
        long_tasks_only=True,
    ),
    # The worker finishes its tasks before it stops; the fault lasts that long.
    Drill("worker-stop", one_instance("worker"), "stop", 30),
    # Shorter than the heartbeat timeout, so the worker's tasks continue. If all running short tasks happen to be on
    # this worker, no short task completes for as long as the fault lasts.
    Drill("worker-frozen", one_instance("worker"), "freeze", 30, "interruption", 40),
    Drill("worker-cut", one_instance("worker"), "cut", 30, "interruption", 40),
    Drill("worker-slow", one_instance("worker"), "slow", 30, "interruption", 10),
    # Longer than the heartbeat timeout: the tasks run elsewhere, and the worker must not continue them afterwards.
    Drill("worker-frozen-120", one_instance("worker"), "freeze", 120, "rerun", WORKER_RERUN, allowed_alerts=TASKS_LOST),
    # Longer than a task token is valid, 21 minutes each: the worker's tasks are terminated, and its slots are free. A
    # worker that was frozen gets 403; on a worker without network the longest suspension ends before the fault.
    Drill(
        "worker-frozen-1260",
        one_instance("worker"),
        "freeze",
        TOKEN_EXPIRED,
        "rerun",
        WORKER_RERUN,
        allowed_alerts=(*TASKS_LOST, "AirflowComponentDown"),
    ),
    Drill(
        "worker-cut-1260",
        one_instance("worker"),
        "cut",
        TOKEN_EXPIRED,
        "rerun",
        WORKER_RERUN,
        allowed_alerts=(*TASKS_LOST, "AirflowComponentDown"),
    ),
    Drill("workers-crash", all_instances("worker"), "crash", 0, "rerun", WORKER_RERUN, allowed_alerts=TASKS_LOST),
    Drill("triggerer-crash", one_instance("triggerer"), "crash"),
    Drill("triggerer-stop", one_instance("triggerer"), "stop"),
    Drill(
        "triggerer-frozen-120",
        one_instance("triggerer"),
        "freeze",
        120,
        alert="AirflowComponentGone",
    ),
    Drill("dag-processor-crash", one_instance("dag-processor"), "crash"),
    Drill("dag-processor-stop", one_instance("dag-processor"), "stop"),
    Drill(
        "dag-processor-frozen-120",
        one_instance("dag-processor"),
        "freeze",
        120,
        alert="AirflowComponentGone",
    ),
    # Observability: tasks do not depend on it.
    Drill("statsd-exporter-crash", one_instance("statsd-exporter"), "crash"),
    Drill("statsd-exporter-frozen", one_instance("statsd-exporter"), "freeze", 30),
    Drill("otel-collector-crash", one_instance("otel-collector"), "crash"),
    Drill("otel-collector-frozen", one_instance("otel-collector"), "freeze", 30),
    Drill("prometheus-crash", one_instance("prometheus"), "crash"),
    Drill("prometheus-frozen", one_instance("prometheus"), "freeze", 30),
    Drill("alertmanager-crash", one_instance("alertmanager-1"), "crash"),
    Drill("alertmanager-frozen", one_instance("alertmanager-1"), "freeze", 30),
    # The profile data.
    Drill("redis-crash", one_instance("redis"), "crash", 0, "interruption", 30),
    Drill("redis-gone", one_instance("redis"), "kill", 60, "after revert", 30, alert="RedisDown"),
    Drill("postgres-crash", one_instance("postgres"), "crash", 0, "interruption", 30),
    Drill("postgres-gone", one_instance("postgres"), "kill", 60, "after revert", 30, alert="PostgresDown"),
    # The profile data-ha.
    Drill("postgres-primary-crash", primary("patroni"), "crash", 0, "interruption", 20),
    # A primary that is stopped hands over before it exits.
    Drill("postgres-primary-stop", primary("patroni"), "stop", 30, "interruption", 10),
    Drill("postgres-primary-gone", primary("patroni"), "kill", 45, "interruption", PRIMARY_FAILOVER),
    Drill(
        "postgres-primary-frozen", primary("patroni"), "freeze", 45, "interruption", PRIMARY_FAILOVER, in_every_run=True
    ),
    # An alert reports two minutes without a replica.
    Drill(
        "postgres-primary-frozen-120",
        primary("patroni"),
        "freeze",
        120,
        "interruption",
        PRIMARY_FAILOVER,
        allowed_alerts=("PostgresReplicaMissing",),
    ),
    Drill("postgres-primary-cut", primary("patroni"), "cut", 45, "interruption", PRIMARY_FAILOVER),
    # Each statement takes 200 ms, and a task needs dozens of them. That must not cause a failover.
    Drill("postgres-primary-slow", primary("patroni"), "slow", 30, "interruption", 60),
    Drill("postgres-replica-crash", replica("patroni"), "crash"),
    Drill("postgres-replica-gone", replica("patroni"), "kill", 45),
    # Commits wait for the replica until the primary drops it, after three seconds and one Patroni loop.
    Drill("postgres-replica-frozen", replica("patroni"), "freeze", 30, "interruption", 10),
    Drill("postgres-nodes-gone", all_nodes("patroni"), "kill", 60, "after revert", 30, alert="PostgresDown"),
    # The replica returns before the primary and lacks the last commits: it must wait for the primary.
    Drill(
        "postgres-replica-behind",
        primary("patroni"),
        "kill",
        45,
        "after revert",
        30,
        lagging=replica("patroni"),
        allowed_alerts=("PostgresDown",),
    ),
    Drill("etcd-crash", one_instance("etcd-1"), "crash"),
    Drill("etcd-frozen", one_instance("etcd-1"), "freeze", 30),
    Drill("two-etcd-frozen", (Target("etcd-1"), Target("etcd-2")), "freeze", 30),
    Drill("redis-primary-crash", primary("redis"), "crash", 0, "interruption", 15),
    # The AOF is as large as after some 10,000 tasks.
    Drill("redis-primary-crash-laden", primary("redis"), "crash", 0, "interruption", 15, large_aof=True),
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
        allowed_alerts=("RedisReplicaMissing",),
    ),
    Drill("redis-primary-cut", primary("redis"), "cut", 45, "interruption", 15),
    Drill("redis-primary-slow", primary("redis"), "slow", 30, "interruption", 30),
    Drill("redis-replica-crash", replica("redis"), "crash"),
    Drill("redis-replica-frozen", replica("redis"), "freeze", 30),
    Drill("redis-nodes-gone", all_nodes("redis"), "kill", 60, "after revert", 30, alert="RedisDown"),
    Drill("sentinel-crash", one_instance("sentinel-1"), "crash"),
    Drill("sentinel-frozen", one_instance("sentinel-1"), "freeze", 30),
    # All components are slow, none is restarted, and all continue when the CPU is free again.
    Drill(
        "machine-starved",
        (),
        "starve",
        300,
        "after revert",
        30,
        allowed_alerts=STARVATION_ALERTS,
        forbids_container_exits=True,
    ),
    # What `upgrade` does where the schema stays; while a worker finishes its tasks, the other one has half the slots.
    Drill("containers-replaced", (), "replace", 0, "interruption", 10),
    # Each primary hands over before it is replaced.
    Drill("data-tier-replaced", (*all_nodes("patroni"), *all_nodes("redis")), "replace", 0, "interruption", 15),
    # Faults that happen together.
    Drill("primaries-gone", (*primary("patroni"), *primary("redis")), "kill", 45, "interruption", PRIMARY_FAILOVER),
    Drill(
        "host",
        (*primary("patroni"), *primary("redis"), *one_instance("scheduler"), *one_instance("worker")),
        "crash",
        0,
        "rerun",
        HOST_RERUN,
        allowed_alerts=TASKS_LOST,
        in_every_run=True,
    ),
    # If the stack ran on three machines, the loss of one would stop these containers.
    Drill(
        "host-gone",
        (
            *primary("patroni"),
            *primary("redis"),
            *one_instance("etcd-1"),
            *one_instance("sentinel-1"),
            *one_instance("scheduler"),
            *one_instance("api-server"),
            *one_instance("execution-api"),
            *one_instance("worker"),
        ),
        "kill",
        60,
        "rerun",
        HOST_RERUN,
        allowed_alerts=TASKS_LOST,
    ),
)
