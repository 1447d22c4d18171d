"""Who can access what: the source of the first table in .github/SECURITY.md, which a unit test compares with it.

The tests of test_trust_boundaries_roles.py send real requests for each row of ACCESS. The rows of BOUNDARIES name the
tests that show them.
"""

from __future__ import annotations

WHO = ("task", "DAG file", "Viewer", "User", "Op", "Admin", "host user", "neighbour")
"""A host user has an account of the host, a neighbour is on its network; neither has one of the stack or of Docker."""

ACCESS = {
    "read DAGs, runs and XComs": "yes yes yes yes yes yes no no",
    "read task logs": "yes yes yes yes yes yes no no",
    "trigger and clear runs": "yes yes no yes yes yes no no",
    "pause DAGs": "no yes no yes yes yes no no",
    "change XComs": "yes yes no no yes yes no no",
    "read Variables": "yes yes no no yes yes no no",
    "write Variables": "yes yes no no yes yes no no",
    "read Connections": "yes yes no no yes yes no no",
    "read passwords of Connections": "yes yes no no no no no no",
    "write Connections": "no yes no no yes yes no no",
    "change pools": "no yes no no yes yes no no",
    "manage users and roles": "no yes no no no yes no no",
    "read the audit log": "no yes no no no yes no no",
    "read Airflow's configuration": "no no no no no no no no",
    "call the Execution API": "yes no no no no no no no",
    "send findings to the Alertmanagers": "yes no no no no no no no",
    "open another page than Airflow": "no no no no no no no no",
}
BY_COLUMN = (
    "test_a_task_accesses_exactly_its_column",
    "test_a_dag_file_accesses_exactly_its_column",
    "test_a_dag_file_has_no_access_to_an_api",
    "test_each_role_accesses_exactly_its_column",
)
"""The tests of all rows of ACCESS; the last one has the columns from Viewer to neighbour."""

BOUNDARIES = {
    "send metrics and traces": (
        "yes yes no no no no yes no",
        "test_a_task_reaches_statsd_and_otlp_and_nothing_else",
        "test_only_the_doors_publish_ports_and_only_on_loopback",
        "test_a_host_user_reaches_these_ports_without_a_log_in",
    ),
    "read metrics and the Slack stub, past the pages": (
        "no no no no no no yes no",
        "test_a_task_reaches_statsd_and_otlp_and_nothing_else",
        "test_only_the_doors_publish_ports_and_only_on_loopback",
        "test_a_host_user_reaches_these_ports_without_a_log_in",
    ),
    "silence alerts": (
        "no no no no no no yes no",
        "test_a_task_reaches_statsd_and_otlp_and_nothing_else",
        "test_a_task_gives_an_alertmanager_findings_only",
        "test_each_role_accesses_exactly_its_column",
        "test_only_the_doors_publish_ports_and_only_on_loopback",
        "test_a_host_user_reaches_these_ports_without_a_log_in",
    ),
    "log in to Postgres": (
        "no yes no no no no no no",
        "test_a_task_cannot_find_its_workers_log_ins",
        "test_no_dag_code_has_a_key_that_signs_tokens",
        "test_postgres_and_redis_cannot_be_reached_from_outside",
        "test_a_host_user_reads_no_secret_file",
    ),
    "log in to Redis": (
        "no no no no no no no no",
        "test_a_task_cannot_find_its_workers_log_ins",
        "test_no_dag_code_has_a_key_that_signs_tokens",
        "test_postgres_and_redis_cannot_be_reached_from_outside",
        "test_a_host_user_reads_no_secret_file",
    ),
    "write, delete or redirect task logs": (
        "no no no no no no no no",
        "test_neither_a_task_nor_a_dag_file_can_write_logs",
        "test_api_servers_can_write_no_log_and_have_no_dag_files",
    ),
    "read keys that sign tokens and sessions": (
        "no no no no no no no no",
        "test_no_dag_code_has_a_key_that_signs_tokens",
        "test_a_link_swapped_in_while_a_log_is_read_shows_no_secret",
        "test_a_run_reads_no_file_or_service_outside_its_roots",
        "test_a_host_user_reads_no_secret_file",
    ),
    "use Docker": (
        "no no no no no no no no",
        "test_no_container_can_use_docker_or_the_hosts_devices",
        "test_a_host_user_may_not_use_docker",
    ),
}
"""The cells, then the tests that show them."""


def allowed(who: str) -> set[str]:
    """Return the rows of ACCESS with `yes` in a column."""
    return {access for access, cells in ACCESS.items() if cells.split()[WHO.index(who)] == "yes"}


def table() -> list[str]:
    """Return all rows as a table of Markdown, and the numbered list of tests below it."""
    notes = [", ".join(f"`{test}`" for test in BY_COLUMN)]
    rows = [("", *WHO, "test"), ("---",) * (len(WHO) + 2)]
    rows += [(access, *cells.split(), "1") for access, cells in ACCESS.items()]
    for access, (cells, *tests) in BOUNDARIES.items():
        notes += [note for test in tests if test not in BY_COLUMN and (note := f"`{test}`") not in notes]
        numbers = sorted(1 if test in BY_COLUMN else notes.index(f"`{test}`") + 1 for test in tests)
        rows.append((access, *cells.split(), ", ".join(map(str, numbers))))
    listed = [f"{number}. {note}" for number, note in enumerate(notes, 1)]
    return [*(f"| {' | '.join(row)} |".replace("|  |", "| |") for row in rows), "", *listed]
