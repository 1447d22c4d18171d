"""Postgres: connections, transactions, dead rows, transaction ids, replication slots."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from airflow_ha.sizes import GIB, MIB
from ops import data_tier
from ops.doctor.finding import Finding, OutOfScopeError, Urgency
from ops.doctor.host import clock_difference, other_clock, urgency_above
from ops.errors import FAILURE, StackError
from ops.settings_file import has_own_data

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ops.doctor.finding import Examined

CONNECTIONS_SOON, CONNECTIONS_URGENT = 0.80, 0.95
"""Used share of max_connections; the alert PostgresConnections fires at the first."""
TRANSACTION_SOON, TRANSACTION_URGENT = 300.0, 900.0
"""Seconds; the alert PostgresLongTransaction fires at the second."""
BLOCKED_URGENT: Final = 60.0
"""Age in seconds of a transaction that others wait for."""
STATEMENT_SOON: Final = 60.0
"""Seconds of one statement."""
DEAD_ROWS, DEAD_SHARE = 100_000, 0.5
"""Autovacuum starts at a fifth of a table: more than this, and it does not keep up."""
IDS_SOON, IDS_URGENT = 400_000_000, 1_500_000_000
"""Age of the oldest transaction id: autovacuum starts at 200 million, and Postgres stops writes near 2.1 billion."""
SLOT_SOON, SLOT_URGENT = 1 * GIB, 10 * GIB
"""WAL that a replication slot without a reader retains."""

# No statement's text: it may contain data.
QUERY: Final = """
WITH blockers AS (
  SELECT unnest(pg_blocking_pids(pid)) AS pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'
), sessions AS (
  SELECT pid, coalesce(usename, '') AS "user", coalesce(datname, '') AS database, coalesce(state, '') AS state,
    extract(epoch FROM now() - xact_start) AS seconds,
    CASE WHEN state = 'active' THEN extract(epoch FROM now() - query_start) ELSE 0 END AS statement_seconds,
    (SELECT count(*) FROM blockers WHERE blockers.pid = activity.pid) AS blocked
  FROM pg_stat_activity AS activity
  WHERE backend_type = 'client backend' AND xact_start IS NOT NULL AND pid <> pg_backend_pid()
  ORDER BY xact_start LIMIT 20
), dirty AS (
  SELECT relname AS name, n_dead_tup AS dead, n_live_tup AS live
  FROM pg_stat_user_tables ORDER BY n_dead_tup DESC LIMIT 10
), slots AS (
  SELECT slot_name AS name, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) AS bytes
  FROM pg_replication_slots WHERE NOT active AND restart_lsn IS NOT NULL
)
SELECT json_build_object(
  'now', extract(epoch FROM clock_timestamp()),
  'limit', current_setting('max_connections')::int,
  'connections', (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
  'oldest_id', (SELECT max(greatest(age(datfrozenxid), mxid_age(datminmxid))) FROM pg_database),
  'sessions', (SELECT coalesce(json_agg(sessions), '[]') FROM sessions),
  'tables', (SELECT coalesce(json_agg(dirty), '[]') FROM dirty),
  'slots', (SELECT coalesce(json_agg(slots), '[]') FROM slots))
"""


class Session(NamedTuple):
    """An open transaction: the seconds since its start and of its statement, and how many sessions wait for it."""

    pid: int
    user: str
    database: str
    state: str
    seconds: float
    statement_seconds: float
    blocked: int


@dataclass(frozen=True)
class Database:
    """The state of the primary.

    Attributes:
        container: Its container.
        clock: Seconds by which its clock differs from the host's.
        limit: max_connections.
        connections: Of clients.
        oldest_id: Transactions since the oldest id that is not frozen.
        sessions: The oldest transactions.
        tables: Dead and live rows by table, of those with the most dead rows.
        slots: Bytes of WAL that each replication slot without a reader retains.
    """

    container: str
    clock: float
    limit: int
    connections: int
    oldest_id: int
    sessions: tuple[Session, ...]
    tables: dict[str, tuple[int, int]]
    slots: dict[str, int]


def primary(examined: Examined) -> str:
    """Return the container of the Postgres that accepts writes.

    Raises:
        StackError: None does, or Postgres is external.
    """
    if not has_own_data(examined.settings):
        raise OutOfScopeError("cannot check Postgres: it is external", hint="check it with its own monitoring")
    return data_tier.writable_postgres(examined.instances)


def answer(container: str, query: str) -> dict[str, Any]:
    """Return the JSON object that a query returns.

    Raises:
        StackError: The query fails, or takes longer than 4 s.
    """
    text = data_tier.ask(container, *data_tier.PSQL, "-d", "airflow", "-Atc", query)
    if not text:
        raise StackError(
            "cannot query Postgres: the query failed or took longer than 4 s",
            where=container,
            hint="run ./ops/stack logs postgres (with data-ha patroni-1 or patroni-2)",
            code=FAILURE,
        )
    result: dict[str, Any] = json.loads(text)
    return result


def gather(examined: Examined) -> Database:
    """Return the state of the primary."""
    container = primary(examined)
    before = time.time()
    facts = answer(container, QUERY)
    return Database(
        container=container,
        clock=clock_difference(before, facts["now"], time.time()),
        limit=facts["limit"],
        connections=facts["connections"],
        oldest_id=facts["oldest_id"],
        sessions=tuple(Session(**session) for session in facts["sessions"]),
        tables={table["name"]: (table["dead"], table["live"]) for table in facts["tables"]},
        slots={slot["name"]: int(slot["bytes"]) for slot in facts["slots"]},
    )


def psql(container: str, statement: str) -> str:
    """Return the command line that runs a statement on the primary."""
    return f'docker exec {container} psql -U postgres -d airflow -c "{statement}"'


def clock(database: Database) -> Iterator[Finding]:
    """Yield a finding if Postgres' clock differs from the host's."""
    yield from other_clock("postgres", database.clock)


def connections(database: Database) -> Iterator[Finding]:
    """Yield a finding if most connections are in use."""
    share = database.connections / database.limit
    if urgency := urgency_above(share, CONNECTIONS_SOON, CONNECTIONS_URGENT):
        fix = psql(
            database.container,
            "select usename, client_addr, state, count(*) from pg_stat_activity group by 1, 2, 3 order by 4 desc",
        )
        value = f"{database.connections} of {database.limit} in use"
        yield Finding(urgency, "postgres", "connections nearly used up", value, fix)


def transactions(database: Database) -> Iterator[Finding]:
    """Yield a finding for each transaction that is old, or that others wait for."""
    for session in database.sessions:
        urgency = urgency_above(session.seconds, TRANSACTION_SOON, TRANSACTION_URGENT)
        state = "long transaction"
        if session.blocked and session.seconds >= BLOCKED_URGENT:
            urgency, state = Urgency.URGENT, f"transaction blocks {session.blocked} sessions"
        elif not urgency and session.statement_seconds >= STATEMENT_SOON:
            urgency, state = Urgency.SOON, "slow statement"
        if urgency:
            value = f"open for {session.seconds:.0f} s, {session.state}, user {session.user}, process {session.pid}"
            fix = psql(database.container, f"select pg_terminate_backend({session.pid})")
            yield Finding(urgency, f"database {session.database}", state, value, fix)


def dead_rows(database: Database) -> Iterator[Finding]:
    """Yield a finding for each table that vacuum does not keep clean."""
    for name, (dead, live) in database.tables.items():
        if dead >= DEAD_ROWS and dead >= DEAD_SHARE * live:
            fix = psql(database.container, f"vacuum (verbose, analyze) {name}")
            yield Finding(Urgency.SOON, f"table {name}", "dead rows", f"{dead:,} dead, {live:,} live", fix)


def transaction_ids(database: Database) -> Iterator[Finding]:
    """Yield a finding if transaction ids run out."""
    if urgency := urgency_above(database.oldest_id, IDS_SOON, IDS_URGENT):
        value = f"{database.oldest_id:,} transactions old; Postgres stops near 2,100,000,000"
        fix = f"docker exec {database.container} vacuumdb -U postgres --all --freeze --jobs=2"
        yield Finding(urgency, "postgres", "oldest transaction id", value, fix)


def unread_slots(database: Database) -> Iterator[Finding]:
    """Yield a finding for each replication slot without a reader that retains much WAL."""
    for name, retained in database.slots.items():
        if urgency := urgency_above(retained, SLOT_SOON, SLOT_URGENT):
            value = f"{retained // MIB} MiB of WAL retained"
            yield Finding(urgency, f"replication slot {name}", "no reader", value, "./ops/stack up starts its replica")
