"""The registry of patches, which the loader, the guard, `./ops/stack` and README.md read.

The host reads it too, so it imports nothing of Airflow. After an upstream change, adapt the patch and take the new
digests from `python -m airflow_ha.patches --digests`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

Kind = Literal["safety", "speed"]

MODES: Final = ("all", "safety", "none")
"""Values of PATCHES in compose/.env."""
SERVICES: Final = (
    "scheduler",
    "execution-api",
    "api-server",
    "dag-processor",
    "triggerer",
    "worker",
    "flower",
    "migrate",
)
"""Values of AIRFLOW_HA_COMPONENT in services that run Airflow. A team's own `worker-…` service counts as `worker`."""

CORE: Final = {"apache-airflow-core": "3.3.2"}
SDK: Final = {"apache-airflow-task-sdk": "1.3.2"}
FAB: Final = {"apache-airflow-providers-fab": "3.9.0"}
FLASK_SESSION: Final = {"flask-session": "0.8.0"}
CELERY: Final = {"celery": "5.6.3"}
KOMBU: Final = {"kombu": "5.6.2"}
REDIS: Final = {"redis": "6.4.0"}
SQLALCHEMY: Final = {"sqlalchemy": "2.0.54"}
FASTAPI: Final = {"fastapi": "0.136.3"}
STARLETTE: Final = {"starlette": "1.6.0"}
CADWYN: Final = {"cadwyn": "7.0.0"}
HTTPX: Final = {"httpx": "0.28.1"}
JSONSCHEMA: Final = {"jsonschema": "4.26.0"}
FLOWER: Final = {"flower": "2.1.0"}

SCHEDULER: Final = frozenset({"scheduler"})
EXECUTION_API: Final = frozenset({"execution-api"})
WORKER: Final = frozenset({"worker"})
DATABASE_USERS: Final = frozenset({"scheduler", "execution-api", "api-server", "dag-processor", "triggerer"})

JOB: Final = "airflow.jobs.scheduler_job_runner:SchedulerJobRunner"
DAG_RUN: Final = "airflow.models.dagrun:DagRun"
SUPERVISOR: Final = "airflow.sdk.execution_time.supervisor"
TASK_RUNNER: Final = "airflow.sdk.execution_time.task_runner"
TRIGGERER: Final = "airflow.jobs.triggerer_job_runner"
IMPORTER: Final = "airflow.dag_processing.importers.python_importer:PythonDagImporter"
NONE_FOUND: Final = "none found"


@dataclass(frozen=True, kw_only=True)
class Patch:
    """One patch of Airflow, Celery or a library.

    Attributes:
        name: Name of its module in this package.
        kind: "safety" keeps a guarantee of the stack in a failure; "speed" saves CPU or latency.
        components: Members of SERVICES in which it is applied.
        benefit: Its purpose, in one line.
        cost: Its cost, in one line.
        written_for: Version of each distribution that it changes.
        replaces: Digest of each source that it replaces or relies on, by `module:Qualified.name`.
        issue: URL of the upstream issue, or NONE_FOUND.
        test: Path under tests/unit of the tests that fail without it; `patches/test_NAME.py` if empty.
        requires: Patches that must be applied too, else this one is skipped.
        after: Module whose import applies it, also in a command that runs in a component's container.
        early: Components that apply it before Airflow creates its engine; the others apply it when they start.
    """

    name: str
    kind: Kind
    components: frozenset[str]
    benefit: str
    cost: str
    written_for: Mapping[str, str]
    replaces: Mapping[str, str]
    issue: str = NONE_FOUND
    test: str = ""
    requires: Sequence[str] = ()
    early: frozenset[str] = field(default=frozenset())
    after: str = ""

    @property
    def test_file(self) -> str:
        """Path under tests/unit of the tests that fail without it."""
        return self.test or f"patches/test_{self.name}.py"


PATCHES: Final[tuple[Patch, ...]] = (
    # ---- connections to Postgres
    Patch(
        name="prefer_last_good_host",
        kind="safety",
        components=DATABASE_USERS | {"worker", "migrate"},
        early=DATABASE_USERS | {"migrate"},
        benefit="After a failover, new connections do not wait 3 s for the frozen node",
        cost="None while the first node answers",
        written_for=SQLALCHEMY,
        replaces={},
    ),
    Patch(
        name="attach_to_result_engine",
        kind="safety",
        components=frozenset({"scheduler", "worker"}),
        benefit="The Postgres connection patches also cover the connections to Celery's result backend",
        cost="None",
        written_for=CELERY,
        replaces={"celery.backends.database.session:SessionManager.get_engine": "9a13bbb7b338"},
    ),
    Patch(
        name="db_connect_retry",
        kind="safety",
        components=frozenset({"scheduler", "dag-processor", "triggerer"}),
        early=frozenset({"scheduler", "dag-processor", "triggerer"}),
        benefit="The schedulers, DAG processor and triggerer survive a database failover without a restart",
        cost="A query may wait up to 40 s for a primary before it fails",
        written_for=SQLALCHEMY,
        replaces={},
    ),
    Patch(
        name="close_stale_primary_connections",
        kind="safety",
        components=DATABASE_USERS | {"worker", "migrate"},
        early=DATABASE_USERS | {"migrate"},
        benefit="Connections to a frozen Postgres primary are closed as soon as a new primary is elected",
        cost="One thread per process if Postgres has replicas; in a worker only while a result is written",
        written_for=SQLALCHEMY,
        replaces={},
    ),
    # ---- Redis
    Patch(
        name="close_stale_broker_connections",
        kind="safety",
        components=WORKER,
        benefit="A worker takes tasks again as soon as a frozen Redis primary is replaced",
        cost="One thread in each worker's main process if Redis has replicas",
        written_for=KOMBU | REDIS,
        replaces={
            "kombu.transport.redis:SentinelChannel": "bd92f0892cf7",
            "redis.connection:AbstractConnection.connect_check_health": "c38a5eb5614f",
            "redis.sentinel:SentinelManagedConnection": "649247bc33fe",
        },
    ),
    Patch(
        name="redis_failover_errors",
        kind="safety",
        components=frozenset({"scheduler", "worker", "flower"}),
        benefit="A Redis failover costs a connection, not the worker or the task that is being queued",
        cost="None",
        written_for=KOMBU | REDIS,
        replaces={
            "kombu.transport.redis:Channel._connparams": "a5e402fcdf5d",
            "kombu.transport.redis:Transport": "19305c862cbf",
            "redis._parsers.base:BaseParser.EXCEPTION_CLASSES": "5177446796ba",
        },
        issue="https://github.com/celery/kombu/issues/582 (one of three faults)",
    ),
    Patch(
        name="flower_sentinel_user",
        kind="safety",
        components=frozenset({"flower"}),
        benefit="Flower counts the messages of replicated Redis with its own, limited user",
        cost="None",
        written_for=FLOWER,
        replaces={"flower.utils.broker:RedisSentinel._get_redis_client": "f4e1c37ebf52"},
    ),
    Patch(
        name="broker_reconnect_steps",
        kind="safety",
        components=WORKER,
        benefit="A worker that lost Redis reconnects every second, not after 2, 6, 12 and 20 s",
        cost="None while Redis answers",
        written_for=CELERY | KOMBU,
        replaces={"celery.worker.consumer.consumer:Consumer.ensure_connected": "533cddc5891a"},
    ),
    Patch(
        name="celery_pool_flush",
        kind="safety",
        components=WORKER,
        benefit="After a lost Redis connection, no task is given to a busy process",
        cost="None",
        written_for=CELERY,
        replaces={"celery.concurrency.asynpool:AsynPool.flush": "038d5e07c452"},
        issue="https://github.com/celery/celery/pull/10346",
    ),
    # ---- assets
    Patch(
        name="asset_event_registration",
        kind="safety",
        components=DATABASE_USERS,
        after="airflow.assets.manager",
        benefit="No asset event is lost while a scheduler creates a run from the queued events",
        cost="A lock on the queue's rows until the registering transaction ends",
        written_for=CORE | SQLALCHEMY,
        replaces={
            "airflow.assets.manager:AssetManager._get_or_create_apdr": "773e6a016af7",
            "airflow.assets.manager:AssetManager._queue_dagruns_nonpartitioned_postgres": "53b1d643ac55",
        },
        issue="https://github.com/apache/airflow/issues/54659",
    ),
    Patch(
        name="asset_triggered_runs",
        kind="safety",
        components=SCHEDULER,
        benefit="Each asset event is consumed by exactly one run of each consumer",
        cost="One more query per asset-triggered run",
        written_for=CORE,
        replaces={f"{JOB}._create_dag_runs_asset_triggered": "00ac0a17e497"},
        issue="https://github.com/apache/airflow/issues/54659",
    ),
    # ---- schedulers
    Patch(
        name="confirm_lost_heartbeats",
        kind="safety",
        components=SCHEDULER,
        benefit="After a database outage, healthy tasks are not failed for missing heartbeats",
        cost="None: the first check runs earlier by the time that the confirmation takes",
        written_for=CORE,
        replaces={f"{JOB}._find_task_instances_without_heartbeats": "a2b63ea3088a"},
    ),
    Patch(
        name="hold_unconsumed_queues",
        kind="safety",
        components=SCHEDULER,
        benefit="Tasks of a queue without a worker stay scheduled and take no slot from other tasks",
        cost="One call to Redis and one query every few seconds",
        written_for=CORE,
        replaces={
            f"{JOB}._executable_task_instances_to_queued": "e2969b5fc983",
            f"{JOB}._handle_tasks_stuck_in_queued": "cf99006c14ea",
            f"{JOB}._maybe_requeue_stuck_ti": "f158d702bec7",
        },
    ),
    Patch(
        name="release_leaked_slots",
        kind="safety",
        components=SCHEDULER,
        benefit="The executor slot of a cleared or deleted task is released within a minute",
        cost="One query every 10 s",
        written_for=CORE | {"apache-airflow-providers-celery": "3.24.0"},
        replaces={f"{JOB}._handle_tasks_stuck_in_queued": "cf99006c14ea"},
    ),
    Patch(
        name="dag_run_examination_order",
        kind="safety",
        components=SCHEDULER,
        benefit="DAG runs that only wait do not delay DAG runs that can progress",
        cost="One more query per scheduler loop while more than 20 DAG runs are running",
        written_for=CORE,
        replaces={
            f"{DAG_RUN}.get_queued_dag_runs_to_set_running": "532082efe86b",
            f"{DAG_RUN}.get_running_dag_runs_to_examine": "5018d1f4f87e",
            f"{JOB}._schedule_dag_run": "f36906f103c3",
        },
        issue="https://github.com/apache/airflow/pull/72730",
    ),
    Patch(
        name="skip_idle_dag_runs",
        kind="speed",
        components=SCHEDULER,
        benefit="Large DAG runs with nothing to decide do not delay the others",
        cost="One query per scheduler loop; a change that the query does not detect is handled within 5 minutes",
        written_for=CORE,
        replaces={
            "airflow.models.dag_version:DagVersion._latest_version_select": "c1a41358c46d",
            f"{DAG_RUN}.task_instance_scheduling_decisions": "e0b016bcd034",
            f"{JOB}._schedule_all_dag_runs": "fc7b2244ab83",
        },
        issue="https://github.com/apache/airflow/issues/31185",
    ),
    Patch(
        name="keep_result_connection",
        kind="speed",
        components=SCHEDULER,
        benefit="A scheduler keeps its connection to the result backend: 0.8 of the latency of a short run",
        cost="One Postgres connection per scheduler",
        written_for=CELERY,
        replaces={"celery.backends.database.session:SessionManager.get_engine": "9a13bbb7b338"},
        issue="https://github.com/apache/airflow/pull/41870",
    ),
    Patch(
        name="scheduler_notify_wakeup",
        kind="speed",
        components=frozenset({"scheduler", "execution-api", "api-server", "triggerer"}),
        early=frozenset({"execution-api", "api-server", "triggerer"}),
        benefit="Schedulers wake on events, not only on a timer",
        cost="A NOTIFY in each commit that schedulers act on; one thread and one connection per scheduler",
        written_for=CORE | SQLALCHEMY,
        replaces={f"{JOB}._do_scheduling": "b266e014c89d", f"{JOB}._run_scheduler_loop": "6f46b4af1116"},
    ),
    # ---- API servers
    Patch(
        name="bound_xcom_reads",
        kind="safety",
        components=frozenset({"execution-api", "api-server"}),
        requires=("split_xcom_slice",),
        benefit="An API server never loads more XCom values at once than its memory can hold",
        cost="The values of a slice are serialised once more to measure them",
        written_for=CORE | SQLALCHEMY,
        replaces={
            "airflow.api_fastapi.core_api.routes.public.xcom:get_xcom_entries": "3bf75fcea5ee",
            "airflow.api_fastapi.execution_api.routes.xcoms:get_mapped_xcom_by_slice": "cb6cb7bd85c7",
        },
    ),
    Patch(
        name="store_user_sessions_only",
        kind="safety",
        components=frozenset({"api-server"}),
        after="airflow.providers.fab.www.session",
        benefit="Requests without a log-in store nothing in the database, and expired sessions are deleted",
        cost="One query in about 100 requests to the pages of the log-in",
        written_for=FAB | FLASK_SESSION,
        replaces={
            "airflow.providers.fab.www.session:AirflowDatabaseSessionInterface": "d5751bbd7b00",
            "airflow.providers.fab.www.session:SessionExemptMixin": "a23ccf16c7e7",
            "flask_session.base:ServerSideSessionInterface.open_session": "2c883e0a18a6",
            "flask_session.base:ServerSideSessionInterface.save_session": "8f19e79a921c",
        },
    ),
    Patch(
        name="task_log_stream",
        kind="safety",
        components=frozenset({"api-server"}),
        benefit="A task log of any size is sent in chunks of bounded size",
        cost="None",
        written_for=CORE,
        replaces={
            "airflow.api_fastapi.core_api.routes.public.log:_NDJSON_BATCH_SIZE": "82e47f8c8bd0",
            "airflow.utils.log.log_reader:TaskLogReader.read_log_stream": "79c52d37f942",
        },
        test="task_logs/test_handler.py",
    ),
    Patch(
        name="inline_api_middleware",
        kind="speed",
        components=EXECUTION_API,
        benefit="Middlewares start no asyncio task or stream per call: saves a fifth of the Execution API's CPU",
        cost="Each response is held in memory as a whole",
        written_for=CORE | CADWYN | STARLETTE,
        replaces={
            "airflow.api_fastapi.execution_api.app:CorrelationIdMiddleware": "d0cae5a1805a",
            "airflow.api_fastapi.execution_api.app:JWTReissueMiddleware": "153a0eaaaca0",
            "cadwyn.middleware:VersionPickingMiddleware": "3239d7fac815",
            "starlette.middleware.base:BaseHTTPMiddleware.__call__": "67b971af8c16",
        },
        issue="https://github.com/encode/starlette/issues/1678",
    ),
    Patch(
        name="open_session_on_event_loop",
        kind="speed",
        components=EXECUTION_API,
        benefit="A call switches to another thread only for work that may wait for the database",
        cost="None",
        written_for=CORE | FASTAPI,
        replaces={
            "airflow.api_fastapi.common.db.common:_get_session": "abf886ec9709",
            "fastapi.dependencies.utils:_solve_generator": "69b919041931",
        },
    ),
    # ---- processes that run DAG code
    Patch(
        name="mask_mounted_secrets",
        kind="safety",
        components=frozenset({"worker", "dag-processor", "triggerer"}),
        benefit="Task, DAG processor and triggerer logs never show the contents of secret files",
        cost="None",
        written_for=CORE | SDK,
        replaces={
            "airflow._shared.secrets_masker.secrets_masker:SecretsMasker.reset_masker": "86af65a690c6",
            "airflow.sdk._shared.secrets_masker.secrets_masker:SecretsMasker.reset_masker": "86af65a690c6",
        },
    ),
    Patch(
        name="dag_import_signals",
        kind="safety",
        components=frozenset({"worker", "dag-processor"}),
        benefit="A segmentation fault in DAG code ends the process instead of looping forever",
        cost="None",
        written_for=CORE,
        replaces={
            f"{IMPORTER}._load_modules_from_file": "ec0e0ee919b1",
        },
        issue="https://github.com/apache/airflow/issues/57174",
    ),
    Patch(
        name="report_parser_exit",
        kind="safety",
        components=frozenset({"dag-processor"}),
        benefit="A DAG file that crashes or blocks its parser becomes an import error and delays no other file",
        cost="A slow file that fails is parsed less often until it changes",
        written_for=CORE,
        replaces={
            "airflow.dag_processing.manager:DagFileProcessorManager._kill_timed_out_processors": "073bc1dc60c6",
            "airflow.dag_processing.manager:DagFileProcessorManager.handle_parsing_result": "62e0b7779745",
            "airflow.dag_processing.manager:DagFileProcessorManager.persist_parsing_result": "662bf719abaa",
            "airflow.dag_processing.manager:DagFileProcessorManager.prepare_file_queue": "0dc1801e1062",
            "airflow.dag_processing.processor:DagFileProcessorProcess.is_ready": "80025e6819bd",
            "airflow.dag_processing.processor:DagFileProcessorProcess.start": "f45f309eb7b3",
            "airflow.dag_processing.processor:_parse_file": "cd9aec750edf",
            "airflow.dag_processing.processor:_parse_file_entrypoint": "97b24f434f27",
        },
    ),
    Patch(
        name="isolate_trigger_faults",
        kind="safety",
        components=frozenset({"triggerer"}),
        benefit="A faulty trigger fails only the task that waits for it",
        cost="Each event is encoded twice; an event may have at most 4 MiB",
        written_for=CORE | SDK,
        replaces={
            f"{TRIGGERER}:TriggerRunner.create_triggers": "0e6593eb2e86",
            f"{TRIGGERER}:TriggerRunner.process_trigger_events": "40ef4bf60ec4",
            f"{TRIGGERER}:TriggerRunner.run_trigger": "42dc7241892a",
            f"{TRIGGERER}:TriggerRunnerSupervisor._create_workload": "32f010a4799a",
            f"{TRIGGERER}:TriggerRunnerSupervisor._process_log_messages_from_subprocess": "49b4c5d1fc94",
            f"{TRIGGERER}:TriggerRunnerSupervisor.heartbeat": "8f6df21ea7bb",
            f"{TRIGGERER}:TriggerRunnerSupervisor.load_triggers": "7ec22da4bbe9",
            f"{TRIGGERER}:TriggerRunnerSupervisor.on_trigger_event": "5f2b9841f407",
            f"{TRIGGERER}:TriggerRunnerSupervisor.on_trigger_failure": "02d647092663",
            f"{TRIGGERER}:TriggerRunnerSupervisor.run": "6c22b00dc479",
            f"{TRIGGERER}:TriggerRunnerSupervisor.run_in_process": "6e4660481309",
            f"{SUPERVISOR}:WatchedSubprocess._service_subprocess": "e13d1a638921",
        },
        issue="https://github.com/apache/airflow/issues/70385",
    ),
    # ---- workers; where several patch the same function, each wraps the one before
    Patch(
        name="reap_ended_task",
        kind="speed",
        components=WORKER,
        benefit="A slot is released as soon as its task ends, not up to 5 s later",
        cost="None",
        written_for=SDK,
        replaces={f"{SUPERVISOR}:WatchedSubprocess._service_subprocess": "e13d1a638921"},
    ),
    Patch(
        name="heartbeat_lease",
        kind="safety",
        components=WORKER,
        benefit="A task without an accepted heartbeat is suspended before its next try starts elsewhere",
        cost="One thread per running task; a suspended task keeps its locks and sessions",
        written_for=SDK,
        replaces={
            "airflow.sdk.api.client:Client.request": "cf667dc395c0",
            f"{SUPERVISOR}:ActivitySubprocess._handle_heartbeat_failures": "39380a371263",
            f"{SUPERVISOR}:ActivitySubprocess._monitor_subprocess": "1f82728b9d80",
            f"{SUPERVISOR}:ActivitySubprocess._send_heartbeat_if_needed": "5fdc12e37ef0",
            f"{SUPERVISOR}:MAX_FAILED_HEARTBEATS": "b90dd047b49b",
            f"{SUPERVISOR}:WatchedSubprocess._service_subprocess": "e13d1a638921",
            f"{SUPERVISOR}:WatchedSubprocess._signal_subprocess": "988b0911dd40",
            f"{SUPERVISOR}:WatchedSubprocess.send_msg": "1ead35ae8644",
            f"{TASK_RUNNER}:_prepare": "3fcfc32ed7b1",
        },
        issue="https://github.com/apache/airflow/issues/7925",
    ),
    Patch(
        name="hold_execution_timeout",
        kind="safety",
        components=WORKER,
        requires=("heartbeat_lease",),
        benefit="The `execution_timeout` clock stops while a task is suspended",
        cost="None",
        written_for=SDK,
        replaces={
            "airflow.sdk.execution_time.timeout:TimeoutPosix": "694e18a6dc80",
            "airflow.sdk.execution_time.timeout:timeout": "8d6197755ca7",
            f"{TASK_RUNNER}:_run_execute_callable": "15aaa393b598",
        },
    ),
    Patch(
        name="isolate_task_process",
        kind="safety",
        components=WORKER,
        benefit="Each task process has its own limits and scratch folder, and leaves no process behind",
        cost="A few system calls and one folder per task",
        written_for=SDK,
        replaces={
            "airflow.sdk.execution_time.coordinator:_PythonCoordinator.execute_task": "64b06a9bec36",
            f"{SUPERVISOR}:PsutilTracker": "8f55ce338175",
            f"{SUPERVISOR}:WatchedSubprocess._check_subprocess_exit": "aa5c8e25fe05",
            f"{SUPERVISOR}:WatchedSubprocess._service_subprocess": "e13d1a638921",
            f"{SUPERVISOR}:WatchedSubprocess.start": "1e09c7c5b6e5",
            f"{SUPERVISOR}:_fork_main": "8d5f20acb4d7",
        },
        issue="https://github.com/apache/airflow/issues/65505 (the process group only)",
    ),
    Patch(
        name="protect_task_logs",
        kind="safety",
        components=frozenset({"worker", "dag-processor", "triggerer"}),
        benefit="DAG code cannot forge, delete or redirect the logs of tasks",
        cost="DAG code cannot write to the log folder at all; about 100 system calls per process",
        written_for=CORE | SDK,
        replaces={f"{SUPERVISOR}:_fork_main": "8d5f20acb4d7"},
    ),
    Patch(
        name="report_task_exit",
        kind="safety",
        components=WORKER,
        requires=("isolate_task_process",),
        benefit="A task whose process was killed has the reason in its log, and its callbacks run",
        cost="The scheduler decides on the retry, a few seconds later",
        written_for=SDK,
        replaces={f"{SUPERVISOR}:ActivitySubprocess.update_task_state_if_needed": "ca7a710ee9da"},
        test="patches/test_isolate_task_process.py",
    ),
    Patch(
        name="end_task_after_sigterm",
        kind="safety",
        components=WORKER,
        benefit="A terminated task stops at once and does not run 5 s beside its next try",
        cost="None",
        written_for=SDK,
        replaces={f"{TASK_RUNNER}:_prepare": "3fcfc32ed7b1"},
        issue="https://github.com/apache/airflow/issues/73006",
    ),
    Patch(
        name="allow_callback_paths",
        kind="safety",
        components=WORKER,
        benefit="A forged message cannot make a worker call any function of any module",
        cost="A callback outside the DAG folder and the plugins folder must be listed in CALLBACK_PATHS",
        written_for=SDK,
        replaces={"airflow.sdk.execution_time.callback_supervisor:execute_callback": "1ac4367907cf"},
    ),
    Patch(
        name="limit_request_size",
        kind="safety",
        components=WORKER,
        benefit="A task whose request is too large fails at once, with the reason in its log",
        cost="A task cannot send an XCom over XCOM_LIMIT or another request over REQUEST_LIMIT",
        written_for=SDK | HTTPX,
        replaces={
            "airflow.sdk.api.client:raise_on_4xx_5xx": "9c60e1a3f4f5",
            "airflow.sdk.execution_time.comms:CommsDecoder._from_frame": "86c97789a2e4",
            "airflow.sdk.execution_time.comms:_FrameMixin.as_bytes": "a6a8c1862e01",
            f"{TASK_RUNNER}:_run_task_and_map_outcome": "d3d6162832eb",
            "httpx._client:Client.send": "264e9955f38f",
        },
    ),
    Patch(
        name="bound_task_output",
        kind="safety",
        components=WORKER,
        benefit="A printed line of any length costs the task's supervisor at most a megabyte",
        cost="Longer lines are logged in several parts",
        written_for=SDK,
        replaces={f"{SUPERVISOR}:make_buffered_socket_reader": "d93cc56877dc"},
    ),
    Patch(
        name="split_xcom_slice",
        kind="safety",
        components=WORKER,
        benefit="A task can pull more mapped XComs than an API server reads at once",
        cost="For such a slice, one call per value",
        written_for=SDK,
        replaces={"airflow.sdk.api.client:XComOperations.get_sequence_slice": "33dc24a98264"},
    ),
    Patch(
        name="prepare_task_fork",
        kind="speed",
        components=WORKER,
        benefit="Each task process inherits what every task needs: saves a fifth of a no-op task's CPU",
        cost="Half a second when a worker starts",
        written_for=CORE | SDK,
        replaces={
            "airflow.sdk.execution_time.comms:CommsDecoder": "1d964c1aa078",
            f"{TASK_RUNNER}:_serialize_rendered_fields": "635d8a38a15a",
            f"{TASK_RUNNER}:parse": "de64ef082142",
        },
    ),
    Patch(
        name="clear_logger_caches_once",
        kind="speed",
        components=WORKER,
        benefit="A task process sets up its logging with one cache clear: saves 2% of a no-op task's CPU",
        cost="None",
        written_for=SDK,
        replaces={f"{SUPERVISOR}:_configure_logs_over_json_channel": "2022fee64322"},
    ),
    Patch(
        name="skip_empty_param_schema",
        kind="speed",
        components=WORKER,
        benefit="Params without a schema skip the schema check: saves 6% of a no-op task's CPU",
        cost="None",
        written_for=JSONSCHEMA,
        replaces={"jsonschema.validators:create.Validator.check_schema": "8b2ed5e9f539"},
    ),
)

NAMES: Final = tuple(patch.name for patch in PATCHES)


def service_of(component: str) -> str:
    """Return the member of SERVICES that a component belongs to, or the component itself if there is none."""
    return "worker" if component.startswith("worker-") else component


def component_patches(component: str) -> tuple[Patch, ...]:
    """Return the patches of a component, in the order of application."""
    return tuple(patch for patch in PATCHES if service_of(component) in patch.components)


def disabled_names(disabled: str) -> tuple[str, ...]:
    """Return the patch names in a value of PATCHES_DISABLED."""
    return tuple(name.strip() for name in disabled.split(",") if name.strip())


def validate(patches: str, disabled: str) -> None:
    """Check the values of PATCHES and PATCHES_DISABLED.

    Raises:
        ValueError: A value is unknown; the message lists the known values.
    """
    if (patches or "all") not in MODES:
        raise ValueError(f"PATCHES is {patches!r}; valid values are {', '.join(MODES)}")
    if unknown := [name for name in disabled_names(disabled) if name not in NAMES]:
        raise ValueError(f"PATCHES_DISABLED names {', '.join(unknown)}; known patches are {', '.join(sorted(NAMES))}")


def switched_off(patches: str, disabled: str) -> dict[str, str]:
    """Return the reason for each patch that these values switch off."""
    names = disabled_names(disabled)
    reasons = {}
    for patch in PATCHES:
        if patches == "none" or (patches == "safety" and patch.kind != "safety"):
            reasons[patch.name] = f"PATCHES={patches}"
        elif patch.name in names:
            reasons[patch.name] = "PATCHES_DISABLED"
    return with_dependents(reasons)


def with_dependents(reasons: Mapping[str, str], among: Collection[str] = NAMES) -> dict[str, str]:
    """Return the reasons, extended by the patches that require a patch in them."""
    extended = dict(reasons)
    for patch in PATCHES:
        missing = [name for name in patch.requires if name in extended]
        if missing and patch.name not in extended and patch.name in among:
            extended[patch.name] = f"requires {', '.join(missing)}, which is not applied"
    return extended
