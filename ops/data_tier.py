"""The replicated data tier (profile `data-ha`): the role, state and lag of each node, and Patroni's settings."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict

import yaml

from ops import compose, time_limits
from ops.child_process import run_limited
from ops.errors import FAILURE, StackError
from ops.services import POSTGRES_NODES, REDIS_NODES, SENTINELS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ops.compose import Instance
    from ops.project import Project

ANSWER_SECONDS = 5.0
"""Timeout of a node's answer: `docker exec` in a hung container has none of its own."""

PATRONI: Final = ("sh", "/etc/patroni/with-secrets.sh", "patronictl", "-c", "/etc/patroni/patroni.yaml")
# The query ends before ask() does: it may wait for a lock.
PSQL: Final = ("env", "PGOPTIONS=-c statement_timeout=4s", "psql", "-X", "-U", "postgres")
CLUSTER: Final = "airflow"
"""The name of the Postgres cluster at Patroni, and of the primary at the Sentinels."""
# Patroni's REST API, called inside the container: its port is not published, and the image has no curl.
READ_CLUSTER: Final = (
    "python3",
    "-c",
    "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8008/cluster', timeout=4).read().decode())",
)

Role = Literal["primary", "sync replica", "replica", "unknown"]
PATRONI_ROLES: Final[Mapping[str, Role]] = {"leader": "primary", "sync_standby": "sync replica"}


class Member(TypedDict):
    """One node of Postgres or Redis.

    `state`: running or streaming for a healthy node, else Patroni's state, "disconnected" (a Redis replica without a
    link to its primary) or "unreachable". `lag_bytes`: the part of the primary's log that a replica lacks; None if
    unknown.
    """

    service: str
    role: Role
    state: str
    lag_bytes: int | None


def is_healthy(member: Member) -> bool:
    """Return whether a node has a known role and runs or streams."""
    return member["role"] != "unknown" and member["state"] in ("running", "streaming")


def members(name: str) -> list[Member]:
    """Return the nodes of Postgres, then of Redis, of a compose project.

    Args:
        name: The compose project's name.
    """
    containers = running(name)
    answers = (ask(containers[node], *READ_CLUSTER) for node in POSTGRES_NODES if node in containers)
    cluster = next((answer for answer in answers if answer), None)
    replication = {
        node: ask_redis(containers[node], "info", "replication") for node in REDIS_NODES if node in containers
    }
    return [*postgres_members(cluster), *redis_members(replication)]


def is_in_sync(tier: list[Member]) -> bool:
    """Return whether Postgres and Redis each have one primary and healthy replicas, in Postgres synchronous ones."""
    clusters = [[member for member in tier if member["service"] in nodes] for nodes in (POSTGRES_NODES, REDIS_NODES)]
    return (
        all(map(has_one_primary, clusters))
        and all(map(is_healthy, tier))
        and all(member["role"] != "replica" for member in tier if member["service"] in POSTGRES_NODES)
    )


def has_one_primary(cluster: list[Member]) -> bool:
    """Return whether exactly one node is the primary."""
    return [member["role"] for member in cluster].count("primary") == 1


def primaries(tier: list[Member]) -> set[str]:
    """Return the services of the nodes that report the role of primary."""
    return {member["service"] for member in tier if member["role"] == "primary"}


def has_synchronous(tier: list[Member]) -> bool:
    """Return whether Postgres has a synchronous replica, which must confirm every commit."""
    return any(member["role"] == "sync replica" for member in tier)


def writable_postgres(by_service: Mapping[str, list[Instance]]) -> str:
    """Return the container of the Postgres that accepts writes, on either data tier.

    Args:
        by_service: The containers.

    Raises:
        StackError: None does.
    """
    for instance in compose.in_state(by_service, "running", ("postgres", *POSTGRES_NODES)):
        if ask(instance.id, *PSQL, "-d", "postgres", "-Atc", "SELECT pg_is_in_recovery()") == "f":
            return instance.id
    raise StackError(
        "cannot query Postgres: no node accepts writes",
        hint="read alerting/runbooks/PostgresDown.md, and run ./ops/stack logs postgres (with data-ha patroni-1)",
        code=FAILURE,
    )


def running(name: str) -> dict[str, str]:
    """Return the ids of the data tier's running containers by service."""
    by_service = compose.instances(name)
    return {
        service: instance.id
        for service in (*POSTGRES_NODES, *REDIS_NODES, *SENTINELS)
        for instance in compose.in_state(by_service, "running", [service])
    }


def postgres_members(cluster: str | None) -> list[Member]:
    """Return the Postgres nodes from Patroni's answer to GET /cluster; a node missing there is unreachable."""
    try:
        known = {member["name"]: member for member in json.loads(cluster or "{}").get("members", [])}
    except json.JSONDecodeError:
        known = {}
    return [postgres_member(node, known.get(node)) for node in POSTGRES_NODES]


def postgres_member(node: str, known: Mapping[str, Any] | None) -> Member:
    """Return one Postgres node from its entry in Patroni's answer."""
    if known is None:
        return unreachable(node)
    lag = known.get("lag")
    return Member(
        service=node,
        role=PATRONI_ROLES.get(known["role"], "replica"),
        state=known["state"],
        lag_bytes=lag if isinstance(lag, int) else None,
    )


def unreachable(node: str) -> Member:
    """Return a node that does not answer."""
    return Member(service=node, role="unknown", state="unreachable", lag_bytes=None)


def redis_members(replication: Mapping[str, str | None]) -> list[Member]:
    """Return the Redis nodes from each node's answer to INFO replication; a node without an answer is unreachable."""
    facts = {node: info(answer) for node, answer in replication.items() if answer and "role:" in answer}
    offsets = [int(fact["master_repl_offset"]) for fact in facts.values() if fact["role"] == "master"]
    return [redis_member(node, facts.get(node), max(offsets, default=None)) for node in REDIS_NODES]


def info(answer: str) -> dict[str, str]:
    """Return the fields of an answer to INFO."""
    return dict(line.strip().split(":", 1) for line in answer.splitlines() if ":" in line)


def redis_member(node: str, fact: Mapping[str, str] | None, primary_offset: int | None) -> Member:
    """Return one Redis node from its own answer."""
    if fact is None:
        return unreachable(node)
    if fact["role"] == "master":
        return Member(service=node, role="primary", state="running", lag_bytes=None)
    connected = fact.get("master_link_status") == "up"
    lag = None if primary_offset is None else max(0, primary_offset - int(fact["slave_repl_offset"]))
    return Member(service=node, role="replica", state="streaming" if connected else "disconnected", lag_bytes=lag)


def apply_cluster_settings(project: Project, name: str, report: Callable[[str], None]) -> None:
    """Copy the settings of compose/patroni/patroni.yaml to etcd, where Patroni keeps them.

    Patroni itself copies them only at the first start of the cluster.

    Raises:
        StackError: Patroni refused them.
    """
    settings = yaml.safe_load((project.compose_directory / "patroni/patroni.yaml").read_text(encoding="utf-8"))
    containers = running(name)
    node = next((containers[node] for node in POSTGRES_NODES if node in containers), None)
    if node is None:
        return
    cluster_settings = json.dumps(settings["bootstrap"]["dcs"])
    result = execute(node, *PATRONI, "edit-config", "--quiet", "--force", "--apply", "-", stdin=cluster_settings)
    if result.returncode != 0:
        raise StackError(
            f"cannot apply the settings of Patroni: {last_line(result.stdout + result.stderr)}",
            where="bootstrap.dcs in compose/patroni/patroni.yaml",
            hint="fix the settings, then run ./ops/stack up",
            code=FAILURE,
        )
    if "Configuration changed" in result.stdout:
        report("Patroni has new settings from compose/patroni/patroni.yaml")


def left_behind(profile_on: str, name: str, volumes: list[str]) -> str | None:
    """Return a warning if the profile starts an empty database while the other profile's has data; None otherwise."""
    data_volumes = {"data": [f"{name}_postgres-data"], "data-ha": [f"{name}_{node}-data" for node in POSTGRES_NODES]}
    own, other = data_volumes.pop(profile_on), next(iter(data_volumes.values()))
    if set(own).isdisjoint(volumes) and (left := sorted(set(other).intersection(volumes))):
        return f"{profile_on} starts with an empty database; the existing data stays in {', '.join(left)}"
    return None


# ---- commands in a container -------------------------------------------------------------------------------


def execute(
    container: str, *command: str, stdin: str = "", seconds: float = time_limits.COMMAND
) -> subprocess.CompletedProcess[str]:
    """Run a command in a container, and return its result.

    Raises:
        StackError: It has not ended after `seconds`. It may continue in the container.
    """
    arguments = ["docker", "exec", "--interactive", container, *command]
    return run_limited(arguments, seconds, f"run {command[0]} in the container {container}", stdin=stdin)


def ask(container: str, *command: str) -> str | None:
    """Return the output of a command in a container; None if it fails or exceeds ANSWER_SECONDS."""
    try:
        result = subprocess.run(
            ["docker", "exec", container, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=ANSWER_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def ask_redis(container: str, *command: str) -> str | None:
    """Return the answer of Redis or Sentinel; the password is read inside the container and is on no command line."""
    script = (
        "REDISCLI_AUTH=$(cat /run/secrets/redis_operator_password)"
        ' exec redis-cli --no-auth-warning --user operator -h 127.0.0.1 "$@"'
    )
    return ask(container, "sh", "-c", script, "redis-cli", *command)


def last_line(text: str) -> str:
    """Return the last line that is not blank."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no output")
