#!/bin/sh
# Runs once, in an empty data directory. Creates a database for Airflow's metadata and one for Celery's results, both
# owned by the role `airflow`, which workers do not have. Their role `celery_results` may only store results: `migrate`
# grants that and sets limits (src/airflow_ha/result_database.py). The exporter's role reads statistics only.
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
CREATE DATABASE celery_results OWNER airflow;
REVOKE CONNECT, TEMPORARY ON DATABASE airflow, celery_results, postgres FROM PUBLIC;
GRANT CONNECT ON DATABASE celery_results TO celery_results;
GRANT CONNECT ON DATABASE postgres TO monitoring;
SQL
