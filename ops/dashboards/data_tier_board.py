"""Postgres, Redis, and the gateway in front of the API servers: health, limits and load."""

from __future__ import annotations

from ops.dashboards.panel import ALL_IS_GOOD, NONE_IS_GOOD, Dashboard, Panel, Query

LAST_BACKUP = 'airflow_ha_backup_last_success_timestamp_seconds{kind="any"}'
LAST_VERIFICATION = "airflow_ha_backup_last_verified_restore_timestamp_seconds"

DATA_TIER = Dashboard(
    uid="airflow-data-tier",
    title="Data tier",
    question="Are Postgres and Redis up, and how near are they to a limit? Does the API respond at the gateway?",
    rows=(
        (
            Panel(
                "Up",
                "Are Postgres and Redis reachable? Red: nothing is scheduled (Postgres), or no task reaches a "
                "worker (Redis).",
                "value",
                (Query("pg_up", "Postgres"), Query("redis_up", "Redis")),
                steps=ALL_IS_GOOD,
                value_texts=((1, "up", "green"), (0, "down", "red")),
                width=6,
                height=5,
                runbook="PostgresDown",
            ),
            Panel(
                "Postgres: connections in use",
                "How much of max_connections is in use? At 100% new connections are refused, and schedulers and API "
                "servers fail.",
                "gauge",
                (Query("sum(pg_stat_activity_count) / max(pg_settings_max_connections)"),),
                unit="percentunit",
                steps=((None, "green"), (0.7, "orange"), (0.9, "red")),
                width=6,
                height=5,
                maximum=1,
                runbook="PostgresConnections",
            ),
            Panel(
                "Redis: memory in use",
                "How much of maxmemory is in use? At 100% Redis refuses new messages (it never evicts one), and "
                "tasks stay queued.",
                "gauge",
                (Query("redis_memory_used_bytes / (redis_memory_max_bytes > 0)"),),
                unit="percentunit",
                steps=((None, "green"), (0.7, "orange"), (0.9, "red")),
                width=6,
                height=5,
                maximum=1,
                runbook="RedisMemory",
            ),
            Panel(
                "Redis: last write to disk",
                "Would queued tasks survive a crash of Redis? They would not, if the append-only file cannot be "
                "written.",
                "value",
                (Query("redis_aof_last_write_status"),),
                steps=ALL_IS_GOOD,
                value_texts=((1, "kept", "green"), (0, "failed", "red")),
                width=6,
                height=5,
                runbook="RedisPersistence",
            ),
        ),
        (
            Panel(
                "Postgres: connections, by state",
                "In which state are the connections? Connections that are 'idle in transaction' hold locks and "
                "block others.",
                "lines",
                (Query("sum by (state) (pg_stat_activity_count) > 0", "{{state}}"),),
                runbook="PostgresConnections",
            ),
            Panel(
                "Postgres: transactions a second",
                "How high is the load, and how many transactions roll back? A task needs about 27.",
                "lines",
                (
                    Query("sum(rate(pg_stat_database_xact_commit[$__rate_interval]))", "committed"),
                    Query("sum(rate(pg_stat_database_xact_rollback[$__rate_interval]))", "rolled back"),
                ),
                unit="ops",
            ),
            Panel(
                "Postgres: longest transaction",
                "Does one transaction block others? If it takes over a minute, find it in pg_stat_activity.",
                "lines",
                (Query('max by (datname) (pg_stat_activity_max_tx_duration{datname!=""})', "{{datname}}"),),
                unit="s",
                runbook="PostgresLongTransaction",
            ),
        ),
        (
            Panel(
                "Postgres: size",
                "How fast does each database grow? Maintenance keeps it steady after RETENTION_RUNS_DAYS.",
                "lines",
                (Query('pg_database_size_bytes{datname!~"template.*"}', "{{datname}}"),),
                unit="bytes",
            ),
            Panel(
                "Maintenance: since the last success",
                "Were old rows, logs and artifacts removed last night? After three days without success they pile up.",
                "value",
                (Query("time() - max(airflow_ha_maintenance_last_success_timestamp_seconds)"),),
                unit="s",
                steps=((None, "green"), (2 * 86400, "orange"), (3 * 86400, "red")),
                width=4,
                runbook="MaintenanceOverdue",
            ),
            Panel(
                "Maintenance: removed a day",
                "What goes: rows, files and versions? A jump follows a lower limit, or a load that ended long ago.",
                "lines",
                (Query("sum by (kind) (increase(airflow_ha_maintenance_removed_total[1d])) > 0", "{{kind}}"),),
                width=8,
            ),
            Panel(
                "Postgres: deadlocks",
                "Do transactions block one another? Postgres cancels one of the two.",
                "value",
                (Query("sum(increase(pg_stat_database_deadlocks[$__range]))"),),
                steps=NONE_IS_GOOD,
                width=4,
            ),
        ),
        (
            Panel(
                "Backups: since the last one",
                "How old is the newest backup of the database, in the storage where it is oldest? The older it is, the "
                "more log a restore has to replay.",
                "value",
                (Query(f"time() - min(max by (repository) ({LAST_BACKUP}))"),),
                unit="s",
                steps=((None, "green"), (25 * 3600, "orange"), (48 * 3600, "red")),
                width=5,
                runbook="BackupOverdue",
            ),
            Panel(
                "Backups: since the last verified restore",
                "When was a backup last restored and checked, in the storage where that is longest ago? Without that "
                "it is unknown whether they can be restored.",
                "value",
                (Query(f"time() - min(max by (repository) ({LAST_VERIFICATION}))"),),
                unit="s",
                steps=((None, "green"), (8 * 86400, "orange"), (14 * 86400, "red")),
                width=5,
                runbook="BackupUnverified",
            ),
            Panel(
                "Backups: lag of the archive",
                "How much would the loss of Postgres' disk lose now? Above 5 minutes the repository does not take the "
                "log.",
                "lines",
                (Query("max(airflow_ha_backup_archive_lag_seconds)", "lag"),),
                unit="s",
                width=7,
                runbook="BackupArchiveLags",
            ),
            Panel(
                "Backups: size in the repository",
                "How fast do the backups of the database grow? Their log and the files come on top.",
                "lines",
                (Query("max by (repository) (airflow_ha_backup_stored_bytes)", "{{repository}}"),),
                unit="bytes",
                width=7,
            ),
        ),
        (
            Panel(
                "Redis: commands and clients",
                "How high is the broker's load, and are clients connected? Every worker and scheduler has a few "
                "connections.",
                "lines",
                (
                    Query("rate(redis_commands_processed_total[$__rate_interval])", "commands a second"),
                    Query("redis_connected_clients", "clients"),
                ),
                width=16,
            ),
            Panel(
                "Redis: rejected clients",
                "Did Redis reject clients because maxclients was reached?",
                "value",
                (Query("increase(redis_rejected_connections_total[$__range])"),),
                steps=NONE_IS_GOOD,
            ),
        ),
        (
            Panel(
                "API: errors a minute",
                "Do users (api-server) or tasks (execution-api) get errors? Tasks retry for about 50 s, then fail.",
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
                "API: response time",
                "How long does a response take? The mean of the last 1,024.",
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
                "API: requests queued at the gateway",
                "Are there more requests than the API servers can handle? Each handles eight at a time; the others "
                "wait here.",
                "lines",
                (Query('haproxy_backend_current_queue{proxy=~"api-server|execution-api"}', "{{proxy}}"),),
                runbook="ApiSlow",
            ),
        ),
    ),
)
