"""The first dashboard for on-call engineers: whether all components are up and runs succeed."""

from __future__ import annotations

from ops.dashboards.panel import ALL_IS_GOOD, NONE_IS_GOOD, Dashboard, Panel, Query
from ops.dashboards.promql import tasks_in, zero_of_schedulers

SUCCESS_STEPS = ((None, "red"), (0.95, "orange"), (0.99, "green"))
LIVENESS = ((1, "live", "green"), (0, "silent", "red"))
API_SERVERS = (
    'haproxy_server_status{state="UP",proxy=~"api-server|execution-api"}'
    ' unless on (proxy, server) (haproxy_server_status{state="MAINT"} == 1)'
)
"""1 or 0 for each server; the gateway's spare server slots (MAINT) are excluded."""

OVERVIEW = Dashboard(
    uid="airflow-overview",
    title="Overview",
    question="Are all components up, do runs succeed, and how much of the error budget is left?",
    rows=(
        (
            Panel(
                "Live instances, by component",
                "How many instances of each component report? Red means none: this component does not work. The "
                "panel below shows which instance is missing.",
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
                "Run success rate, last hour",
                "How many of the DAG runs that completed in the last hour succeeded? Under 99% is orange, under 95% "
                "red. The dashboard DAGs and tasks shows which DAG fails.",
                "gauge",
                (Query("sum(increase(airflow_dagrun_success[1h])) / sum(increase(airflow_dagrun_total[1h]))"),),
                unit="percentunit",
                steps=SUCCESS_STEPS,
                width=4,
                height=5,
                maximum=1,
                airflow_path="/dags?last_dag_run_state=failed",
                runbook="AirflowDagRunsFailing",
            ),
            Panel(
                "Error budget left, 7 days",
                "The objective is that 99% of the runs of seven days succeed. How much of the remaining 1% is left? "
                "At 0 the objective is missed: postpone changes.",
                "gauge",
                (Query("clamp_min(airflow_dagrun_error_budget_left_ratio, 0)"),),
                unit="percentunit",
                steps=((None, "red"), (0.25, "orange"), (0.5, "green")),
                width=4,
                height=5,
                maximum=1,
                runbook="AirflowErrorBudgetBurn",
            ),
            Panel(
                "Canary latency",
                "How late is a task that is due every minute? It uses every component. Over 15 s one of them is "
                "slow; no value means that the task does not run.",
                "value",
                (Query("airflow_canary_latency_seconds"),),
                unit="s",
                steps=((None, "green"), (15, "orange"), (60, "red")),
                width=4,
                height=5,
                airflow_path="/dags/canary_dag",
                runbook="AirflowCanaryLate",
            ),
        ),
        (
            Panel(
                "Live instances, by name",
                "Which instance stopped reporting, and when? The name is that of its container; the gateway reports "
                "the API servers. A row that ends was scaled down or replaced. Red means that an expected instance "
                "does not report.",
                "states",
                (
                    Query("airflow_instance_alive", "{{component}} {{airflow_instance}}"),
                    Query(API_SERVERS, "{{server}}"),
                ),
                steps=ALL_IS_GOOD,
                value_texts=LIVENESS,
                width=12,
                height=9,
                runbook="AirflowComponentDown",
            ),
            Panel(
                "Tasks, by state",
                "How many tasks are in each state, and do they progress? If queued grows while running stays flat, "
                "there are too few workers, or none consumes the queue.",
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
                airflow_path="/task_instances",
                runbook="AirflowQueueGrowing",
            ),
            Panel(
                "Completed runs a minute",
                "How many DAG runs complete each minute, and how many of them fail?",
                "columns",
                (
                    Query("60 * sum(rate(airflow_dagrun_success[$__rate_interval]))", "success"),
                    Query("60 * sum(rate(airflow_dagrun_failed[$__rate_interval]))", "failed"),
                ),
                width=6,
                height=9,
                airflow_path="/dag_runs?state=failed",
                runbook="AirflowDagRunsFailing",
            ),
        ),
        (
            Panel(
                "Failed tries a minute, by DAG",
                "Which DAG fails now? Tries that will be retried are included.",
                "columns",
                (Query("60 * sum by (dag_id) (rate(airflow_task_failed[$__rate_interval])) > 0", "{{dag_id}}"),),
                width=12,
                airflow_path="/task_instances?task_state=failed",
                runbook="AirflowTasksFailing",
            ),
            Panel(
                "DAG files with errors",
                "Can every DAG file be parsed? A file with an error has no DAGs, so nothing in it runs.",
                "value",
                (Query("max(airflow_dag_processing_import_errors)"),),
                steps=NONE_IS_GOOD,
                width=4,
                airflow_path="/",
                runbook="AirflowImportErrors",
            ),
            Panel(
                "Tasks killed or lost",
                "Did tasks lose their worker (no heartbeat), or end without a report? Each is run again if it has "
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
                        "no report",
                    ),
                ),
                steps=NONE_IS_GOOD,
                width=8,
                runbook="AirflowTasksLost",
            ),
        ),
    ),
)
