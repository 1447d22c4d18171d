"""Load and capacity of Airflow's components, by instance."""

from __future__ import annotations

from ops.dashboards.panel import Dashboard, Panel, Query
from ops.dashboards.promql import quantile, tasks_in

HEARTBEATS = '{__name__=~"airflow_(scheduler|dag_processor|triggerer|ha_worker)_heartbeat"}'

EXPECTED_WORKERS = 'max(airflow_ha_instances_wanted{component="worker"})'

SCHEDULERS_AND_WORKERS = Dashboard(
    uid="airflow-schedulers-and-workers",
    title="Schedulers and workers",
    question="Does every scheduler, worker and triggerer keep up, and is there capacity for more work?",
    rows=(
        (
            Panel(
                "Heartbeats a minute, by instance",
                "Does each instance send heartbeats? 12 a minute is normal. At 0 the instance hangs or has exited.",
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
                "Scheduler loop duration, by instance",
                "How long does a scheduler loop take? The 95th percentile. Over a few seconds, every task of every "
                "DAG starts late: check the database first.",
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
                "How many more tasks could start now (headroom for autoscaling)? If it stays near 0, add workers.",
                "value",
                (Query("sum(airflow_ha_worker_slots) - sum(airflow_ha_worker_busy_slots)"),),
                steps=((None, "red"), (1, "orange"), (4, "green")),
                width=4,
                runbook="AirflowWorkersFull",
            ),
            Panel(
                "Busy worker slots, by worker",
                "Is the load even, and is a worker idle while others are full? A worker that stays at 0 while tasks "
                "wait does not consume. Suspended tasks hold their slots until Airflow answers their worker.",
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
                "Executor slots, by scheduler",
                "How many more tasks may each scheduler send? If all are at 0, parallelism is the limit, not the "
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
                "Workers: demand, expected and alive",
                "Does the number of workers follow the load? Demand: the workers that have a slot for each queued and "
                "running task, of all queues. Expected: each step is a decision of autoscaling, or of an operator. "
                "While demand is above the ceiling, tasks wait. Without autoscaling both bounds are as expected.",
                "lines",
                (
                    Query(
                        'ceil(airflow_tasks_queued_or_running / max(airflow_ha_worker_slots{component="worker"}))',
                        "demand",
                    ),
                    Query(EXPECTED_WORKERS, "expected"),
                    Query('max(airflow_component_alive{component="worker"})', "alive"),
                    Query(f"max(airflow_ha_workers_floor) or {EXPECTED_WORKERS}", "floor"),
                    Query(f"max(airflow_ha_workers_ceiling) or {EXPECTED_WORKERS}", "ceiling"),
                ),
                width=24,
                runbook="AirflowWorkersAtCeiling",
            ),
        ),
        (
            Panel(
                "Queue depth",
                "How many messages wait in Redis, and how many tasks are queued in the database? If Redis stays "
                "empty while tasks are queued, messages were lost; they are sent again after 30 s.",
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
                "Delay of a run's first task",
                "How long until the first task of a run started, through scheduler, queue and worker? The 95th and "
                "the 50th percentile. (Airflow 3 has no metric for the wait of every task.)",
                "lines",
                (
                    Query(
                        quantile(0.95, "airflow_dagrun_first_task_start_delay", over="5m"),
                        "p95",
                    ),
                    Query(
                        quantile(0.5, "airflow_dagrun_first_task_start_delay", over="5m"),
                        "p50",
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
                airflow_path="/pools",
                runbook="AirflowPoolStarving",
            ),
        ),
        (
            Panel(
                "Tasks starved by a full pool",
                "Do tasks wait only for a slot of their pool? An empty panel is good.",
                "lines",
                (Query("max by (pool_name) (airflow_pool_starving_tasks)", "{{pool_name}}"),),
                airflow_path="/pools",
                runbook="AirflowPoolStarving",
            ),
            Panel(
                "Triggers, by triggerer",
                "How many deferred tasks does each triggerer watch? Both share them. If one has all, the other is "
                "down.",
                "lines",
                (Query("airflow_triggers_running", "{{airflow_instance}}"),),
                runbook="AirflowComponentDown",
            ),
            Panel(
                "Memory, by instance",
                "Which instance approaches its memory limit? At 100% the kernel kills it.",
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
                "Parse time of all DAG files",
                "How long does one pass over all DAG files take? New DAGs appear after that time.",
                "lines",
                (Query("max(airflow_dag_processing_total_parse_time)", "all files"),),
                unit="s",
                width=12,
                runbook="AirflowDagProcessingSlow",
            ),
            Panel(
                "Tasks adopted from a dead scheduler, a minute",
                "Did a scheduler die while it had tasks? Adopted tasks continued under another scheduler, cleared "
                "tasks ran again.",
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
