"""Do the machines of Airflow keep up, each by name, and is there room for more."""

from __future__ import annotations

from ops.dashboards.panel import Dashboard, Panel, Query
from ops.dashboards.promql import quantile, tasks_in

HEARTBEATS = '{__name__=~"airflow_(scheduler|dag_processor|triggerer|ha_worker)_heartbeat"}'

SCHEDULERS_AND_WORKERS = Dashboard(
    uid="airflow-schedulers-and-workers",
    title="Schedulers and workers",
    question="Does every scheduler, worker and triggerer keep up, and is there room for more work?",
    rows=(
        (
            Panel(
                "Heartbeats a minute, by instance",
                "Does each instance beat? Twelve a minute is right; one that falls to 0 hangs or is gone.",
                "lines",
                (
                    Query(
                        f"sum by (component, airflow_instance) (rate({HEARTBEATS}[$__rate_interval])) * 60",
                        "{{component}} {{airflow_instance}}",
                    ),
                ),
                unit="cpm",
                width=12,
                runbook="AirflowComponentDown",
            ),
            Panel(
                "Scheduler's loop, by instance",
                "How long does one round of a scheduler take? 95 of 100 are shorter. Over a few seconds every task "
                "of every DAG starts late: look at the database first.",
                "lines",
                (
                    Query(
                        quantile(0.95, "airflow_scheduler_scheduler_loop_duration", "airflow_instance"),
                        "{{airflow_instance}}",
                    ),
                ),
                unit="s",
                width=12,
                runbook="AirflowSchedulerSlow",
            ),
        ),
        (
            Panel(
                "Free worker slots",
                "Autoscaling headroom: how many tasks more could start this second? Near 0 for long: scale the "
                "workers.",
                "value",
                (Query("sum(airflow_ha_worker_slots) - sum(airflow_ha_worker_busy_slots)"),),
                steps=((None, "red"), (1, "orange"), (4, "green")),
                width=4,
                runbook="AirflowWorkersFull",
            ),
            Panel(
                "Worker slots taken, by worker",
                "Is work spread evenly, and is any worker idle while others are full? A worker that stays at 0 "
                "while tasks wait does not consume. Suspended tasks hold slots until Airflow answers their worker.",
                "lines",
                (
                    Query("airflow_ha_worker_busy_slots", "{{airflow_instance}}"),
                    Query("airflow_ha_suspended_tasks", "suspended on {{airflow_instance}}"),
                    Query("max(airflow_ha_worker_slots)", "slots of one worker"),
                ),
                width=10,
                runbook="AirflowWorkersFull",
            ),
            Panel(
                "Executor's slots, by scheduler",
                "How many tasks may each scheduler still send out? All at 0: parallelism is the limit, not the "
                "workers.",
                "lines",
                (
                    Query("airflow_executor_open_slots", "free {{airflow_instance}}"),
                    Query("airflow_executor_running_tasks", "in flight {{airflow_instance}}"),
                ),
                width=10,
                runbook="AirflowWorkersFull",
            ),
        ),
        (
            Panel(
                "Queue's depth",
                "How many messages wait in Redis, and how many tasks are queued in the database? Redis empty while "
                "tasks are queued for long: messages were lost, and are sent again after 30 s.",
                "lines",
                (
                    Query('redis_key_size{key="default"}', "in Redis"),
                    Query(
                        tasks_in("queued"),
                        "queued",
                    ),
                ),
                runbook="AirflowQueueGrowing",
            ),
            Panel(
                "Wait for a run's first task",
                "How long until the first task of a run began, by way of scheduler, queue and worker? 95 and 50 of "
                "100 waited less. (Airflow 3 sends no metric for the wait of every task.)",
                "lines",
                (
                    Query(
                        quantile(0.95, "airflow_dagrun_first_task_start_delay", over="5m"),
                        "95 of 100",
                    ),
                    Query(
                        quantile(0.5, "airflow_dagrun_first_task_start_delay", over="5m"),
                        "50 of 100",
                    ),
                ),
                unit="s",
                runbook="AirflowQueueGrowing",
            ),
            Panel(
                "Pools: free slots",
                "Which pool is full? Tasks of a full pool wait, however many workers are free.",
                "lines",
                (Query("max by (pool_name) (airflow_pool_open_slots)", "{{pool_name}}"),),
                airflow="/pools",
                runbook="AirflowPoolStarving",
            ),
        ),
        (
            Panel(
                "Tasks that a full pool starves",
                "Are there tasks that nothing but their pool holds back? Empty is good.",
                "lines",
                (Query("max by (pool_name) (airflow_pool_starving_tasks)", "{{pool_name}}"),),
                airflow="/pools",
                runbook="AirflowPoolStarving",
            ),
            Panel(
                "Triggers, by triggerer",
                "How many deferred tasks does each triggerer watch? Both share them; all on one means that the "
                "other died.",
                "lines",
                (Query("airflow_triggers_running", "{{airflow_instance}}"),),
                runbook="AirflowComponentDown",
            ),
            Panel(
                "Memory, by instance",
                "Who grows towards its limit? At 100% the kernel kills it.",
                "lines",
                (
                    Query(
                        "max by (airflow_instance)"
                        " (container_memory_working_set_bytes / (container_spec_memory_limit_bytes > 0))"
                        " * on (airflow_instance) group_left (component) (airflow_instance_alive >= bool 0)",
                        "{{component}} {{airflow_instance}}",
                    ),
                ),
                unit="percentunit",
                runbook="AirflowMemoryNearLimit",
            ),
        ),
        (
            Panel(
                "Time for all DAG files",
                "How long does it take to read all DAG files once? New DAGs are seen that much later.",
                "lines",
                (Query("max(airflow_dag_processing_total_parse_time)", "all files"),),
                unit="s",
                width=12,
                runbook="AirflowDagProcessingSlow",
            ),
            Panel(
                "Tasks taken from a dead scheduler, a minute",
                "Did a scheduler die with work in its hands? Adopted tasks went on under its peer, cleared ones "
                "ran again.",
                "columns",
                (
                    Query("60 * sum(rate(airflow_scheduler_orphaned_tasks_adopted[$__rate_interval]))", "adopted"),
                    Query("60 * sum(rate(airflow_scheduler_orphaned_tasks_cleared[$__rate_interval]))", "cleared"),
                ),
                width=12,
                runbook="AirflowComponentDown",
            ),
        ),
    ),
)
