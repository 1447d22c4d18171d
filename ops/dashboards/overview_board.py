"""Is everything alive and are runs ending well: the first page on call."""

from __future__ import annotations

from ops.dashboards.panel import ALL_IS_GOOD, NONE_IS_GOOD, Dashboard, Panel, Query
from ops.dashboards.promql import tasks_in, zero_of_schedulers

SUCCESS_STEPS = ((None, "red"), (0.95, "orange"), (0.99, "green"))
ALIVE = ((1, "alive", "green"), (0, "silent", "red"))
API_SERVERS = (
    'haproxy_server_status{state="UP",proxy=~"api-server|execution-api"}'
    ' unless on (proxy, server) (haproxy_server_status{state="MAINT"} == 1)'
)
"""1 or 0 for each; a place that the gateway keeps free for one (MAINT) is left out."""

OVERVIEW = Dashboard(
    uid="airflow-overview",
    title="Overview",
    question="Is everything alive, do runs end well, and how much of what we promise is left?",
    rows=(
        (
            Panel(
                "Alive",
                "How many instances of each component are there and speak? Red is none: nothing of that kind works. "
                "Which of them is missing is below, by name.",
                "value",
                (
                    Query("sum by (component) (airflow_instance_alive)", "{{component}}"),
                    Query(f"sum by (proxy) ({API_SERVERS})", "{{proxy}}"),
                ),
                steps=ALL_IS_GOOD,
                width=12,
                height=5,
                runbook="AirflowComponentDown",
            ),
            Panel(
                "Runs that ended well, last hour",
                "Of the DAG runs that ended in the last hour, how many succeeded? Under 99% is orange, under 95% red; "
                "which DAG it is, is under DAGs and tasks.",
                "gauge",
                (Query("sum(increase(airflow_dagrun_success[1h])) / sum(increase(airflow_dagrun_total[1h]))"),),
                unit="percentunit",
                steps=SUCCESS_STEPS,
                width=4,
                height=5,
                top=1,
                airflow="/dags?last_dag_run_state=failed",
                runbook="AirflowDagRunsFailing",
            ),
            Panel(
                "Error budget left, 7 days",
                "We promise that 99% of all runs of seven days end well. How much of the 1% is left? At 0 the "
                "promise is broken: changes wait.",
                "gauge",
                (Query("clamp_min(airflow_dagrun_error_budget_left_ratio, 0)"),),
                unit="percentunit",
                steps=((None, "red"), (0.25, "orange"), (0.5, "green")),
                width=4,
                height=5,
                top=1,
                runbook="AirflowErrorBudgetBurn",
            ),
            Panel(
                "Canary latency",
                "How late does a task run that is due every minute? It passes through everything: over 15 s something "
                "on the way is slow, no value means that it does not run at all.",
                "value",
                (Query("airflow_canary_latency_seconds"),),
                unit="s",
                steps=((None, "green"), (15, "orange"), (60, "red")),
                width=4,
                height=5,
                airflow="/dags/canary_dag",
                runbook="AirflowCanaryLate",
            ),
        ),
        (
            Panel(
                "Who is alive, by name",
                "Which instance went silent, and when? A name is its container's; the API servers are as the gateway "
                "sees them. A name that ends is gone (scaled down or replaced), red is one that should speak.",
                "states",
                (
                    Query("airflow_instance_alive", "{{component}} {{airflow_instance}}"),
                    Query(API_SERVERS, "{{server}}"),
                ),
                steps=ALL_IS_GOOD,
                words=ALIVE,
                width=12,
                height=9,
                runbook="AirflowComponentDown",
            ),
            Panel(
                "Tasks now",
                "How much work is there, and does it move? Queued that grows while running stays flat: too few "
                "workers, or none that consumes.",
                "lines",
                tuple(
                    Query(
                        tasks_in(state),
                        state,
                    )
                    for state in ("running", "queued", "scheduled", "deferred")
                ),
                width=6,
                height=9,
                airflow="/task_instances",
                runbook="AirflowQueueGrowing",
            ),
            Panel(
                "Runs that ended, a minute",
                "How many DAG runs end each minute, and how many of them badly?",
                "columns",
                (
                    Query("60 * sum(rate(airflow_dagrun_success[$__rate_interval]))", "success"),
                    Query("60 * sum(rate(airflow_dagrun_failed[$__rate_interval]))", "failed"),
                ),
                width=6,
                height=9,
                airflow="/dag_runs?state=failed",
                runbook="AirflowDagRunsFailing",
            ),
        ),
        (
            Panel(
                "Failed attempts a minute, by DAG",
                "Which DAG fails right now? Attempts that will be retried count too.",
                "columns",
                (Query("60 * sum by (dag_id) (rate(airflow_task_failed[$__rate_interval])) > 0", "{{dag_id}}"),),
                width=12,
                airflow="/task_instances?task_state=failed",
                runbook="AirflowTasksFailing",
            ),
            Panel(
                "DAG files with errors",
                "Can every DAG file be read? A file with an error has no DAGs: nothing in it runs.",
                "value",
                (Query("max(airflow_dag_processing_import_errors)"),),
                steps=NONE_IS_GOOD,
                width=4,
                airflow="/",
                runbook="AirflowImportErrors",
            ),
            Panel(
                "Tasks killed or lost",
                "Did tasks lose their worker (no heartbeat), or end without telling so? Each is run again if it has "
                "retries left.",
                "value",
                (
                    Query(
                        "sum(increase(airflow_task_instances_without_heartbeats_killed[$__range]))"
                        f" or {zero_of_schedulers()}",
                        "no heartbeat",
                    ),
                    Query(
                        f"sum(increase(airflow_scheduler_tasks_killed_externally[$__range])) or {zero_of_schedulers()}",
                        "ended silently",
                    ),
                ),
                steps=NONE_IS_GOOD,
                width=8,
                runbook="AirflowTasksLost",
            ),
        ),
    ),
)
