"""Which DAG or task fails, is slow, or starts late."""

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
                "Failed attempts, by DAG",
                "Which DAGs cause the failures in the chosen time? An attempt that is retried counts as well.",
                "bars",
                (Query("sort_desc(sum by (dag_id) (increase(airflow_task_failed[$__range])))", "{{dag_id}}"),),
                steps=FAILURES,
                airflow="/task_instances?task_state=failed",
                runbook="AirflowTasksFailing",
            ),
            Panel(
                "Failed attempts, by task",
                "Which task is it? The ten worst of the chosen time.",
                "bars",
                (
                    Query(
                        "topk(10, sum by (dag_id, task_id) (increase(airflow_task_failed[$__range])) > 0)",
                        "{{dag_id}} {{task_id}}",
                    ),
                ),
                steps=FAILURES,
                airflow="/task_instances?task_state=failed",
                runbook="AirflowTasksFailing",
            ),
            Panel(
                "Runs that ended well, by DAG",
                "Which DAG does not keep the promise of 99%? Of its runs in the chosen time.",
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
                top=1,
                airflow="/dag_runs?state=failed",
                runbook="AirflowDagRunsFailing",
            ),
        ),
        (
            Panel(
                "Mean duration of a run",
                "Does a DAG take longer than it used to? The mean of the last hour's runs; a step is a change of code "
                "or of data.",
                "lines",
                (Query("avg by (dag_id) (airflow_dagrun_duration_seconds)", "{{dag_id}}"),),
                unit="s",
                width=12,
                airflow="/dags",
            ),
            Panel(
                "Slowest tasks",
                "Where does the time go? The ten tasks with the longest mean attempt in the last hour.",
                "bars",
                (Query("topk(10, airflow_task_duration)", "{{dag_id}} {{task_id}}"),),
                unit="s",
                width=12,
                airflow="/task_instances",
            ),
        ),
        (
            Panel(
                "Late starts",
                "How long after it is due does a run start? 95 of 100 runs of the last 15 minutes start sooner. "
                "Rising for all DAGs: the schedulers are behind.",
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
                "Waiting for a slot",
                "How long does a task wait between scheduled and queued? 95 of 100 wait less. Rising: too few worker "
                "slots, or a full pool.",
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
                "Attempts that ended a minute, by state",
                "What becomes of tasks? Retries (up_for_retry) that grow are failures to come.",
                "columns",
                (Query("60 * sum by (state) (rate(airflow_task_finish_total[$__rate_interval]))", "{{state}}"),),
                airflow="/task_instances",
            ),
        ),
        (
            Panel(
                "Share of attempts that fail, by task",
                "Which task is flaky? Failed of started attempts, over an hour; 0 is left out.",
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
                airflow="/task_instances?task_state=failed",
                runbook="AirflowTasksFailing",
            ),
            Panel(
                "Time to read a DAG file",
                "Which DAG file is slow to read? The mean of the last 15 minutes; each is read again every half a "
                "minute, and a slow one delays the others.",
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
                airflow="/dags",
            ),
        ),
    ),
)
