"""The replicated data tier (profile `data-ha`): who is what, how far behind, and a planned switch."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict

import yaml

from ops import compose
from ops.errors import FAILURE, StackError
from ops.services import POSTGRES_NODES, REDIS_NODES, SENTINELS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ops.project import Project

ANSWER_SECONDS = 5.0
"""A node that does not answer for so long is away: `docker exec` waits for ever on one that hangs."""
POLL_SECONDS = 0.5

PATRONI: Final = ("sh", "/etc/patroni/with-secrets.sh", "patronictl", "-c", "/etc/patroni/patroni.yaml")
CLUSTER: Final = "airflow"
"""The name of the Postgres cluster at Patroni, and of the primary at the Sentinels."""
# Patroni's REST API, from inside: it is not published, and the image has no curl.
READ_CLUSTER: Final = (
    "python3",
    "-c",
    "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8008/cluster', timeout=4).read().decode())",
)

Role = Literal["primary", "sync replica", "replica", "unknown"]
PATRONI_ROLES: Final[Mapping[str, Role]] = {"leader": "primary", "sync_standby": "sync replica"}


class Member(TypedDict):
    """One node of Postgres or Redis.

    `state`: running or streaming when all is well, else what it does instead; away when it does not answer.
    `lag_bytes`: how much of the primary's log a replica has not got yet; None where it cannot be told.
    """

    service: str
    role: Role
    state: str
    lag_bytes: int | None


def is_healthy(member: Member) -> bool:
    """Whether a node does what it is there for."""
    return member["role"] != "unknown" and member["state"] in ("running", "streaming")


def members(name: str) -> list[Member]:
    """The nodes of Postgres and Redis of a compose project, in this order.

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


def is_in_sync(found: list[Member]) -> bool:
    """Whether Postgres and Redis each have a primary, and replicas that keep up: Postgres' hold every commit."""
    kinds = [[member for member in found if member["service"] in nodes] for nodes in (POSTGRES_NODES, REDIS_NODES)]
    return (
        all(one_primary(of) for of in kinds)
        and all(map(is_healthy, found))
        and all(member["role"] != "replica" for member in found if member["service"] in POSTGRES_NODES)
    )


def primaries(found: list[Member]) -> set[str]:
    """The nodes that say they are one."""
    return {member["service"] for member in found if member["role"] == "primary"}


def has_synchronous(found: list[Member]) -> bool:
    """Whether a replica of Postgres is waited for with every commit."""
    return any(member["role"] == "sync replica" for member in found)


def running(name: str) -> dict[str, str]:
    """The container of each service of the data tier that runs, by service."""
    return {
        service: instance.id
        for service, of in compose.instances(name).items()
        if service in (*POSTGRES_NODES, *REDIS_NODES, *SENTINELS)
        for instance in of
        if instance.state == "running"
    }


def postgres_members(cluster: str | None) -> list[Member]:
    """What Patroni's answer to GET /cluster says of each node; a node that it does not know is away."""
    try:
        known = {member["name"]: member for member in json.loads(cluster or "{}").get("members", [])}
    except json.JSONDecodeError:
        known = {}
    return [postgres_member(node, known.get(node)) for node in POSTGRES_NODES]


def postgres_member(node: str, known: Mapping[str, Any] | None) -> Member:
    """One node as Patroni knows it."""
    if known is None:
        return Member(service=node, role="unknown", state="away", lag_bytes=None)
    lag = known.get("lag")
    return Member(
        service=node,
        role=PATRONI_ROLES.get(known["role"], "replica"),
        state=known["state"],
        lag_bytes=lag if isinstance(lag, int) else None,
    )


def redis_members(replication: Mapping[str, str | None]) -> list[Member]:
    """What each Redis' own answer to INFO replication says of it; one that did not answer is away."""
    facts = {node: info(answer) for node, answer in replication.items() if answer and "role:" in answer}
    offsets = [int(fact["master_repl_offset"]) for fact in facts.values() if fact["role"] == "master"]
    return [redis_member(node, facts.get(node), max(offsets, default=None)) for node in REDIS_NODES]


def info(answer: str) -> dict[str, str]:
    """The fields of an answer to INFO."""
    return dict(line.strip().split(":", 1) for line in answer.splitlines() if ":" in line)


def redis_member(node: str, fact: Mapping[str, str] | None, primary_offset: int | None) -> Member:
    """One Redis by its own account."""
    if fact is None:
        return Member(service=node, role="unknown", state="away", lag_bytes=None)
    if fact["role"] == "master":
        return Member(service=node, role="primary", state="running", lag_bytes=None)
    connected = fact.get("master_link_status") == "up"
    lag = None if primary_offset is None else max(0, primary_offset - int(fact["slave_repl_offset"]))
    return Member(
        service=node, role="replica", state="streaming" if connected else "looks for its primary", lag_bytes=lag
    )


# ---- a planned switch --------------------------------------------------------------------------------------


# ---- settings ----------------------------------------------------------------------------------------------


def apply_cluster_settings(project: Project, name: str, report: Callable[[str], None]) -> None:
    """Brings the settings that Patroni keeps in etcd to those of compose/patroni/patroni.yaml.

    Patroni itself takes them from there at its very first start only.

    Raises:
        StackError: Patroni refused them.
    """
    settings = yaml.safe_load((project.compose_directory / "patroni/patroni.yaml").read_text(encoding="utf-8"))
    containers = running(name)
    node = next((containers[node] for node in POSTGRES_NODES if node in containers), None)
    if node is None:
        return
    wanted = json.dumps(settings["bootstrap"]["dcs"])
    said = execute(node, *PATRONI, "edit-config", "--quiet", "--force", "--apply", "-", stdin=wanted)
    if said.returncode != 0:
        raise StackError(
            f"Patroni did not take its settings: {last_line(said.stdout + said.stderr)}",
            where="bootstrap.dcs in compose/patroni/patroni.yaml",
            hint="mend them; then ./ops/stack up again",
            code=FAILURE,
        )
    if "Configuration changed" in said.stdout:
        report("Patroni has new settings from compose/patroni/patroni.yaml")


def left_behind(profile_on: str, name: str, volumes: list[str]) -> str | None:
    """What to tell people whose data is in the other profile's database; None when there is none."""
    of = {"data": [f"{name}_postgres-data"], "data-ha": [f"{name}_{node}-data" for node in POSTGRES_NODES]}
    here, there = of.pop(profile_on), next(iter(of.values()))
    if set(here).isdisjoint(volumes) and (left := sorted(set(there).intersection(volumes))):
        return f"{profile_on} starts with a database of its own; what was there so far stays in {', '.join(left)}"
    return None


# ---- asking a container ------------------------------------------------------------------------------------


def execute(container: str, *command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Runs a command in a container."""
    return subprocess.run(
        ["docker", "exec", "--interactive", container, *command],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


def ask(container: str, *command: str) -> str | None:
    """What a command in a container prints; None when it fails, or does not end in time."""
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
    """What Redis or Sentinel answers; the password is read inside, and on no command line."""
    script = 'REDISCLI_AUTH=$(cat /run/secrets/redis_password) exec redis-cli --no-auth-warning -h 127.0.0.1 "$@"'
    return ask(container, "sh", "-c", script, "redis-cli", *command)


def last_line(text: str) -> str:
    """The last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")


def one_primary(found: list[Member]) -> bool:
    """Whether exactly one node is the primary."""
    return [member["role"] for member in found].count("primary") == 1
