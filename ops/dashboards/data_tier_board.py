"""Postgres and Redis: up, full, busy; and the gateway before the API servers."""

from __future__ import annotations

from ops.dashboards.panel import ALL_IS_GOOD, NONE_IS_GOOD, Dashboard, Panel, Query

DATA_TIER = Dashboard(
    uid="airflow-data-tier",
    title="Data tier",
    question="Are Postgres and Redis up, and how near are they to a limit? How does the gateway see the API?",
    rows=(
        (
            Panel(
                "Up",
                "Can Postgres and Redis be reached? Red: nothing is scheduled (Postgres), or nothing reaches a worker "
                "(Redis).",
                "value",
                (Query("pg_up", "Postgres"), Query("redis_up", "Redis")),
                steps=ALL_IS_GOOD,
                words=((1, "up", "green"), (0, "down", "red")),
                width=6,
                height=5,
                runbook="PostgresDown",
            ),
            Panel(
                "Postgres: connections taken",
                "How near is max_connections? At 100% new ones are refused, and schedulers and API servers fail.",
                "gauge",
                (Query("sum(pg_stat_activity_count) / max(pg_settings_max_connections)"),),
                unit="percentunit",
                steps=((None, "green"), (0.7, "orange"), (0.9, "red")),
                width=6,
                height=5,
                top=1,
                runbook="PostgresConnections",
            ),
            Panel(
                "Redis: memory taken",
                "How near is maxmemory? At 100% Redis refuses new messages (it never evicts one): tasks stay queued.",
                "gauge",
                (Query("redis_memory_used_bytes / (redis_memory_max_bytes > 0)"),),
                unit="percentunit",
                steps=((None, "green"), (0.7, "orange"), (0.9, "red")),
                width=6,
                height=5,
                top=1,
                runbook="RedisMemory",
            ),
            Panel(
                "Redis: last write to disk",
                "Are queued tasks kept through a crash of Redis? Not, if the append-only file cannot be written.",
                "value",
                (Query("redis_aof_last_write_status"),),
                steps=ALL_IS_GOOD,
                words=((1, "kept", "green"), (0, "failed", "red")),
                width=6,
                height=5,
                runbook="RedisPersistence",
            ),
        ),
        (
            Panel(
                "Postgres: connections, by state",
                "Who holds connections? Many 'idle in transaction' hold locks, and stop others.",
                "lines",
                (Query("sum by (state) (pg_stat_activity_count) > 0", "{{state}}"),),
                runbook="PostgresConnections",
            ),
            Panel(
                "Postgres: transactions a second",
                "How busy is it, and do many roll back? About 27 belong to each task.",
                "lines",
                (
                    Query("sum(rate(pg_stat_database_xact_commit[$__rate_interval]))", "committed"),
                    Query("sum(rate(pg_stat_database_xact_rollback[$__rate_interval]))", "rolled back"),
                ),
                unit="ops",
            ),
            Panel(
                "Postgres: longest transaction",
                "Does one hold everything up? Over a minute, look for it in pg_stat_activity.",
                "lines",
                (Query('max by (datname) (pg_stat_activity_max_tx_duration{datname!=""})', "{{datname}}"),),
                unit="s",
                runbook="PostgresLongTransaction",
            ),
        ),
        (
            Panel(
                "Postgres: size",
                "How fast does it grow? `airflow db clean` is what takes old runs away.",
                "lines",
                (Query('pg_database_size_bytes{datname!~"template.*"}', "{{datname}}"),),
                unit="bytes",
            ),
            Panel(
                "Postgres: deadlocks",
                "Do transactions block one another for good? Postgres ends one of the two.",
                "value",
                (Query("sum(increase(pg_stat_database_deadlocks[$__range]))"),),
                steps=NONE_IS_GOOD,
                width=4,
            ),
            Panel(
                "Redis: commands and clients",
                "How busy is the broker, and is anybody connected? Every worker and scheduler holds a few connections.",
                "lines",
                (
                    Query("rate(redis_commands_processed_total[$__rate_interval])", "commands a second"),
                    Query("redis_connected_clients", "clients"),
                ),
                width=8,
            ),
            Panel(
                "Redis: refused clients",
                "Was anybody turned away because maxclients was reached?",
                "value",
                (Query("increase(redis_rejected_connections_total[$__range])"),),
                steps=NONE_IS_GOOD,
                width=4,
            ),
        ),
        (
            Panel(
                "API: errors a minute",
                "Do people (api-server) or tasks (execution-api) get errors? Tasks try for about 50 s, then fail.",
                "columns",
                (
                    Query(
                        '60 * sum by (proxy) (rate(haproxy_backend_http_responses_total{code="5xx",proxy=~"api-server|'
                        'execution-api"}[$__rate_interval]))',
                        "{{proxy}}",
                    ),
                ),
                runbook="ApiErrors",
            ),
            Panel(
                "API: time to answer",
                "How long does an answer take, as the mean of the last 1,024?",
                "lines",
                (
                    Query(
                        'haproxy_backend_response_time_average_seconds{proxy=~"api-server|execution-api"}',
                        "{{proxy}}",
                    ),
                ),
                unit="s",
                runbook="ApiSlow",
            ),
            Panel(
                "API: requests that wait at the gateway",
                "Are there more requests than API servers can take? Eight at a time each, the rest wait here.",
                "lines",
                (Query('haproxy_backend_current_queue{proxy=~"api-server|execution-api"}', "{{proxy}}"),),
                runbook="ApiSlow",
            ),
        ),
    ),
)
