"""A database of a chosen size beside Airflow's in the same Postgres, for drills and benches of backups."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from airflow_ha.sizes import GIB
from ops import compose, data_tier
from ops.errors import FAILURE, StackError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME: Final = "airflow_ha_sample"
ROW_BYTES: Final = 304
"""A row of FILL with its share of a page."""
FILL: Final = "CREATE TABLE filling AS SELECT {text} FROM generate_series(1, {rows})"
TEXT: Final = " || ".join(["md5(random()::text)"] * 8)
# No role of Airflow may connect.
CREATE: Final = f"CREATE DATABASE {NAME};\nREVOKE CONNECT, TEMPORARY ON DATABASE {NAME} FROM PUBLIC;"
DROP: Final = f"DROP DATABASE IF EXISTS {NAME} WITH (FORCE);"
PSQL: Final = ("psql", "--no-psqlrc", "--username=postgres", "--quiet", "--tuples-only", "--no-align")


@contextmanager
def sample_database(project: str, gib: float, report: Callable[[str], None]) -> Iterator[None]:
    """Create a database of that size for the duration of the block; one that a killed command left is replaced.

    Its rows hardly compress.

    Args:
        project: The compose project's name.
        gib: Its size.
        report: Prints a line of progress.

    Raises:
        StackError: Postgres refuses it.
    """
    report(f"filling a database of {gib:g} GiB")
    run(project, f"{DROP}\n{CREATE}", "postgres")
    try:
        run(project, FILL.format(text=TEXT, rows=round(gib * GIB / ROW_BYTES)))
        yield
    finally:
        run(project, DROP, "postgres")


def run(project: str, statements: str, database: str = NAME) -> str:
    """Run statements as the superuser on the primary, and return their output.

    Raises:
        StackError: There is no primary, or a statement failed.
    """
    command = (*PSQL, "--set=ON_ERROR_STOP=1", f"--dbname={database}")
    primary = data_tier.writable_postgres(compose.instances(project))
    result = data_tier.execute(primary, *command, stdin=statements)
    if result.returncode != 0:
        raise StackError(
            f"cannot use the sample database: {data_tier.last_line(result.stderr)}",
            where=database,
            hint="run ./ops/stack status",
            code=FAILURE,
        )
    return result.stdout.strip()
