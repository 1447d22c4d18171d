"""A task that tries to read the metadata database, which it must not, with every credential that a worker holds."""

from datetime import UTC, datetime, timedelta

from airflow.sdk import dag, task


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    is_paused_upon_creation=False,
    default_args={"owner": "tests", "retries": 1, "retry_delay": timedelta(seconds=1)},
    tags=["tests"],
)
def snoop():
    @task
    def read_metadata() -> dict[str, str]:
        """Return the outcome of each read of `connection` and `variable`."""
        from pathlib import Path

        import psycopg2

        backend = Path("/run/secrets/celery_result_backend").read_text().strip()
        dsn = backend.replace("db+postgresql+psycopg2://", "postgresql://")
        outcome = {"secrets": ",".join(sorted(path.name for path in Path("/run/secrets").iterdir()))}
        for database in ("celery_results", "airflow", "postgres"):
            for table in ("connection", "variable"):
                target = dsn.replace("/celery_results?", f"/{database}?")
                try:
                    with psycopg2.connect(target) as connection, connection.cursor() as cursor:
                        cursor.execute(f"SELECT * FROM {table}")  # noqa: S608
                        outcome[f"{database}.{table}"] = f"read {cursor.rowcount} rows"
                except psycopg2.Error as error:
                    outcome[f"{database}.{table}"] = str(error).strip()
        return outcome

    read_metadata()


snoop()
