"""DAGs and tasks that fail, are slow, or start late."""

from __future__ import annotations

from ops.dashboards.overview_board import SUCCESS_STEPS
from ops.dashboards.panel import Dashboard, Panel, Query
from ops.dashboards.promql import quantile

FAILURES = ((None, "green"), (0.5, "red"))

DAGS_AND_TASKS = Dashboard(
    uid="airflow-dags-and-tasks",
    title="DAGs and tasks",
    question="Which DAG or task fails, is slow, or starts late?",
    rows=(
        (
            Panel(
                "Failed tries, by DAG",
                "Which DAGs cause the failures in the selected time? Tries that were retried are included.",
                "bars",
                (Query("sort_desc(sum by (dag_id) (increase(airflow_task_failed[$__range])))", "{{dag_id}}"),),
                steps=FAILURES,
                airflow_path="/task_instances?task_state=failed",
                runbook="AirflowTasksFailing",
            ),
            Panel(
                "Failed tries, by task",
                "Which tasks cause the failures? The ten worst in the selected time.",
                "bars",
                (
                    Query(
                        "topk(10, sum by (dag_id, task_id) (increase(airflow_task_failed[$__range])) > 0)",
                        "{{dag_id}} {{task_id}}",
                    ),
                ),
                steps=FAILURES,
                airflow_path="/task_instances?task_state=failed",
                runbook="AirflowTasksFailing",
            ),
            Panel(
                "Run success rate, by DAG",
                "Which DAG misses the objective of 99%? The share of its runs in the selected time that succeeded.",
                "bars",
                (
                    Query(
                        "sort(sum by (dag_id) (increase(airflow_dagrun_success[$__range]))"
                        " / (sum by (dag_id) (increase(airflow_dagrun_total[$__range])) > 0))",
                        "{{dag_id}}",
                    ),
                ),
                unit="percentunit",
                steps=SUCCESS_STEPS,
                maximum=1,
                airflow_path="/dag_runs?state=failed",
                runbook="AirflowDagRunsFailing",
            ),
        ),
        (
            Panel(
                "Mean run duration, by DAG",
                "Does a DAG take longer than before? The mean over the runs of the last hour. A step indicates a "
                "change of code or data.",
                "lines",
                (Query("avg by (dag_id) (airflow_dagrun_duration_seconds)", "{{dag_id}}"),),
                unit="s",
                width=12,
                airflow_path="/dags",
            ),
            Panel(
                "Slowest tasks",
                "Which tasks take the most time? The ten tasks with the longest mean try in the last hour.",
                "bars",
                (Query("topk(10, airflow_task_duration)", "{{dag_id}} {{task_id}}"),),
                unit="s",
                width=12,
                airflow_path="/task_instances",
            ),
        ),
        (
            Panel(
                "Run start delay, p95",
                "How long after its due time does a run start? The 95th percentile of the last 15 minutes. If it "
                "rises for all DAGs, the schedulers are too slow.",
                "lines",
                (
                    Query(
                        quantile(0.95, "airflow_dagrun_schedule_delay", "dag_id", over="15m"),
                        "{{dag_id}}",
                    ),
                ),
                unit="s",
                runbook="AirflowSchedulerSlow",
            ),
            Panel(
                "Wait for a slot, p95",
                "How long is a task scheduled before it is queued? The 95th percentile of the last 15 minutes. If "
                "it rises, there are too few worker slots, or a pool is full.",
                "lines",
                (
                    Query(
                        quantile(0.95, "airflow_dag_task_scheduled_duration", "dag_id", over="15m"),
                        "{{dag_id}}",
                    ),
                ),
                unit="s",
                runbook="AirflowQueueGrowing",
            ),
            Panel(
                "Completed tries a minute, by state",
                "What is the outcome of tasks? A rise of retries (up_for_retry) announces failures.",
                "columns",
                (Query("60 * sum by (state) (rate(airflow_task_finish_total[$__rate_interval]))", "{{state}}"),),
                airflow_path="/task_instances",
            ),
        ),
        (
            Panel(
                "Failure rate, by task",
                "Which task is flaky? The share of started tries that failed, over an hour; tasks without a failure "
                "are not shown.",
                "lines",
                (
                    Query(
                        "sum by (dag_id, task_id) (rate(airflow_task_failed[1h]))"
                        " / sum by (dag_id, task_id) (rate(airflow_task_start[1h])) > 0",
                        "{{dag_id}} {{task_id}}",
                    ),
                ),
                unit="percentunit",
                width=12,
                airflow_path="/task_instances?task_state=failed",
                runbook="AirflowTasksFailing",
            ),
            Panel(
                "Parse time, by DAG file",
                "Which DAG file is slow to parse? The mean of the last 15 minutes. Each file is parsed every 30 s, "
                "and a slow one delays the others.",
                "lines",
                (
                    Query(
                        "sum by (file_name) (rate(airflow_dag_processing_last_duration_sum[15m]))"
                        " / (sum by (file_name) (rate(airflow_dag_processing_last_duration_count[15m])) > 0)",
                        "{{file_name}}",
                    ),
                ),
                unit="s",
                width=12,
                airflow_path="/dags",
            ),
        ),
    ),
)
