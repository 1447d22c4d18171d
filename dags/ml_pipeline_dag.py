"""Train, evaluate and register a model every night. `airflow_ha.ml` holds the steps."""

# mypy: allow-untyped-decorators
# (Airflow's decorators are not followed by the type checker.)

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.sdk import ObjectStoragePath, Param, Variable, dag, task, task_group

from airflow_ha.ml import (
    data_source,
    download,
    evaluation,
    model_registry,
    preprocessing,
    quality_gate,
    run_folder,
    training,
    validation,
)
from airflow_ha.ml.failure_email import send_failure_email
from airflow_ha.ml.permanent_failure import no_retry_on
from airflow_ha.ml.sensor import DataSensor

if TYPE_CHECKING:
    from airflow_ha.ml.artifacts import Document


@dag(
    dag_id="ml_pipeline_dag",
    schedule="0 2 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=3,  # a run that waits for its data must not block the next
    dagrun_timeout=timedelta(hours=3),
    is_paused_upon_creation=False,
    tags=["ml", "production"],
    params={
        "source": Param(
            None,
            type=["null", "string"],
            description="URL of a CSV file below a URL of the Variable ml_data_roots, or `digits`. "
            "If empty, the Variable ml_data_source applies, then `digits` (scikit-learn's bundled images).",
        ),
        "label_column": Param("label", type="string", description="The CSV column with the class."),
    },
    default_args={
        "owner": "ml-team",
        "retries": 2,
        "retry_delay": timedelta(minutes=1),
        "execution_timeout": timedelta(minutes=30),
        "on_failure_callback": [send_failure_email],
    },
    doc_md=__doc__,
)
def ml_pipeline() -> None:
    """Wait, download, validate, preprocess, train in parallel, evaluate, register or reject."""
    # Over 60 lines: the decorator needs all tasks and their order in one function; the steps are in `airflow_ha.ml`.

    @task
    def plan_run(params: dict[str, Any], run_id: str, logical_date: datetime | None = None) -> dict[str, Any]:
        with no_retry_on(ValueError):
            return dict(
                run_folder.plan_run(
                    logical_date=logical_date,
                    run_id=run_id,
                    source=params["source"] or Variable.get(data_source.SOURCE_VARIABLE, default=None),
                    label_column=params["label_column"],
                    artifacts_root=Variable.get("ml_artifacts_root", default=None),
                )
            )

    @task
    def download_data(plan: run_folder.Plan) -> Document:
        with no_retry_on(validation.InvalidDataError, data_source.RefusedSourceError):
            return download.download(
                plan["source"],
                plan["label_column"],
                data_source.allowed_roots(),
                ObjectStoragePath(plan["run_directory"]),
            )

    @task
    def validate_data(plan: run_folder.Plan) -> Document:
        with no_retry_on(validation.InvalidDataError):
            return validation.validate(ObjectStoragePath(plan["run_directory"]))

    @task
    def preprocess_data(plan: run_folder.Plan) -> Document:
        return preprocessing.preprocess(ObjectStoragePath(plan["run_directory"]))

    # The pool (2 slots, created by the service `migrate`) limits how many trainings run at the same time.
    @task(pool="ml_training", map_index_template="{{ task.op_kwargs['candidate'] }}")
    def train_model(plan: run_folder.Plan, candidate: str) -> Document:
        return training.train(candidate, ObjectStoragePath(plan["run_directory"]))

    @task
    def evaluate_models(plan: run_folder.Plan) -> Document:
        return evaluation.evaluate(training.CANDIDATES, ObjectStoragePath(plan["run_directory"]))

    @task.branch
    def judge_quality(evaluated: Document, ti: Any) -> str:
        with no_retry_on(quality_gate.QualityGateError):
            required = quality_gate.required_accuracy(Variable.get(quality_gate.VARIABLE, default=None))
        verdict = quality_gate.judge(evaluated, required)
        ti.xcom_push(key="verdict", value=verdict)
        return "register_model" if verdict["passed"] else "reject_model"

    @task
    def register_model(plan: run_folder.Plan, evaluated: Document, verdict: Document) -> Document:
        return model_registry.register(
            plan["version"],
            evaluated,
            verdict,
            ObjectStoragePath(plan["run_directory"]),
            ObjectStoragePath(plan["registry_directory"]),
        )

    @task
    def reject_model(plan: run_folder.Plan, evaluated: Document, verdict: Document) -> Document:
        return model_registry.reject(plan["version"], evaluated, verdict, ObjectStoragePath(plan["registry_directory"]))

    @task(trigger_rule="none_failed_min_one_success")
    def report_result(plan: run_folder.Plan) -> Document:
        return model_registry.decision(plan["version"], ObjectStoragePath(plan["registry_directory"]))

    plan = plan_run()
    data_available = DataSensor(
        task_id="wait_for_data", source=plan["source"], poke_interval=15, timeout=timedelta(hours=2)
    )
    downloaded = download_data(plan)
    preprocessed = preprocess_data(plan)

    @task_group
    def train_candidates() -> Any:
        return train_model.partial(plan=plan).expand(candidate=list(training.CANDIDATES))

    trained = train_candidates()
    evaluated = evaluate_models(plan)
    verdict = judge_quality(evaluated)
    registered = register_model(plan, evaluated, verdict["verdict"])
    rejected = reject_model(plan, evaluated, verdict["verdict"])

    data_available >> downloaded >> validate_data(plan) >> preprocessed >> trained >> evaluated
    [registered, rejected] >> report_result(plan)


ml_pipeline()
