#!/bin/sh
# Runs once, in an empty data directory: a role and a database for Airflow's metadata, and another pair for Celery's
# results. Workers hold only the second, so a task can read neither connections nor variables. A third role sees
# Postgres' own statistics, for the exporter.
set -eu

sql_literal() { # sql_literal FILE: the file's content as an SQL string
  sed "s/'/''/g; 1s/^/'/; \$s/\$/'/" "$1"
}

# The server logs a statement that fails; not these, they hold the passwords.
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres <<SQL
SET log_min_error_statement = panic;
SET log_min_duration_statement = -1;
CREATE ROLE airflow LOGIN PASSWORD $(sql_literal /run/secrets/postgres_airflow_password);
CREATE ROLE celery_results LOGIN PASSWORD $(sql_literal /run/secrets/postgres_celery_password);
CREATE ROLE monitoring LOGIN PASSWORD $(sql_literal /run/secrets/postgres_monitoring_password) IN ROLE pg_monitor;
CREATE DATABASE airflow OWNER airflow;
CREATE DATABASE celery_results OWNER celery_results;
REVOKE CONNECT, TEMPORARY ON DATABASE airflow, celery_results, postgres FROM PUBLIC;
GRANT CONNECT ON DATABASE postgres TO monitoring;
SQL
