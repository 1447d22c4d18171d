#!/bin/sh
# Runs once, in an empty data directory. Creates a role and a database for Airflow's metadata, and a pair for Celery's
# results. Workers have only the second role: a task reads no connections or variables. The exporter's role reads
# statistics only.
set -eu

sql_literal() { # sql_literal FILE: the file's content as an SQL string
  sed "s/'/''/g; 1s/^/'/; \$s/\$/'/" "$1"
}

# Postgres logs failed statements. These contain passwords, so logging is off.
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
