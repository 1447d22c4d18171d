"""A task process inherits what every task needs, and it works as upstream's own."""

from __future__ import annotations

import gc
from types import SimpleNamespace

import pytest

from ops.project import ROOT
from tests.unit.forks import in_forks
from tests.unit.patches.loading import applied

IMPORTS = """
import _abc, signal, sys
from collections.abc import Mapping
from airflow.dag_processing.dagbag import DagBag
from airflow.executors.workloads import ExecutorWorkload
from airflow.sdk.execution_time import comms, task_runner
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from pydantic import TypeAdapter
"""
PRINT_READY = """
{load}
decorators = "airflow.sdk.definitions.decorators" in sys.modules
first, second = (comms.CommsDecoder(log=None, socket=None) for _ in range(2))
queued = [TypeAdapter[ExecutorWorkload](ExecutorWorkload).validator for _ in range(2)]  # like execute_workload
decoders = first.body_decoder is second.body_decoder, queued[0] is queued[1]

def answers():
    _, yes, no, _ = _abc._get_dump(Mapping)
    return len(yes) + len(no)

before = answers()
OTLPSpanExporter(endpoint="http://127.0.0.1:1/", timeout=0.01).export(())
sending = answers() == before
handler, path, loaded = signal.getsignal(signal.SIGSEGV), list(sys.path), set(sys.modules)
bag = DagBag({dag!r}, safe_mode=False, load_op_links=False, bundle_path={folder!r}, bundle_name="b")
import airflow.sdk.definitions.asset.metadata  # like the execution of a Python function
reading = len(bag.dags) == 1 and len(set(sys.modules) - loaded) == 1  # the DAG's own module
untouched = handler == signal.SIG_DFL and {folder!r} not in path
print(*decoders, decorators, sending, reading, untouched)
"""
"""Runs in its own process, because the patch applies to a whole process."""
PATCHES = ROOT / "src/airflow_ha/patches"
LOAD = (
    "from airflow_ha.patches import prepare_task_fork as task_start; task_start.apply(); "
    "task_start.warm_up(sender=None, signal=None)"
)


@pytest.fixture(scope="module")
def ready():
    """The output of PRINT_READY with and without the patch: what is ready before a task starts.

    Whether two tasks share their decoders (of messages, and of the queue); whether the decorators are imported before a
    DAG; whether Python has cached all `isinstance` answers that the span export needs; whether importing a DAG imports
    only the DAG's own module; and whether the rest of the process is unchanged.
    """
    dag = ROOT / "dags/canary_dag.py"
    scripts = [PRINT_READY.format(load=load, dag=str(dag), folder=str(PATCHES)) for load in (LOAD, "")]
    patched, upstream = in_forks(IMPORTS, scripts)
    return SimpleNamespace(patched=patched, upstream=upstream)


@pytest.mark.processes
def test_every_shared_object_is_ready_before_a_task(ready):
    assert ready.patched == "True True True True True True"


@pytest.mark.processes
def test_upstream_builds_decoders_for_each_task(ready):
    """If this fails, upstream is fixed: delete airflow_ha.patches.prepare_task_fork and this file."""
    assert ready.upstream == "False False False False False True"


@pytest.fixture
def task_start():
    """The module, applied without an effect on other tests in this process."""
    from airflow.executors.workloads import ExecutorWorkload

    with applied("prepare_task_fork") as module:
        yield module
    for name in ("core_schema", "validator", "serializer"):
        delattr(ExecutorWorkload, f"__pydantic_{name}__")


def test_template_fields_are_serialised_as_upstream(task_start):
    from airflow.sdk.execution_time import task_runner
    from pydantic import TypeAdapter

    task = SimpleNamespace(template_fields=("args", "where"), args=[1, {"b": None, "a": (2, "x")}], where="{{ ds }}")
    assert task_runner.TypeAdapter is task_start.adapter
    patched = task_runner._serialize_rendered_fields(task)
    task_runner.TypeAdapter = TypeAdapter
    assert patched == task_runner._serialize_rendered_fields(task)
    assert patched == {"args": [1, {"a": [2, "x"], "b": None}], "where": "{{ ds }}"}


def test_message_is_decoded_as_upstream(task_start):
    from airflow.sdk.execution_time import comms
    from pydantic import TypeAdapter

    message = {"type": "VariableResult", "key": "k", "value": "v"}
    assert task_start.adapter(comms.ToTask).validate_python(message) == TypeAdapter(comms.ToTask).validate_python(
        message
    )


def test_queued_workload_is_decoded_as_upstream(task_start):
    from airflow.executors.workloads import ExecutorWorkload
    from pydantic import TypeAdapter, ValidationError

    assert TypeAdapter(ExecutorWorkload).validator is task_start.adapter(ExecutorWorkload).validator
    with pytest.raises(ValidationError, match="does not match any of the expected tags"):
        TypeAdapter(ExecutorWorkload).validate_json('{"type": "other"}')


def test_main_process_warms_up_before_it_freezes(task_start):
    from celery.signals import worker_init

    patched = [receiver() for _, receiver in worker_init.receivers]
    assert patched.index(task_start.warm_up) < patched.index(task_start.freeze)


def test_pool_process_does_not_warm_up(task_start):
    """Celery kills a pool process that starts too slowly: on a starved host it would restart each one forever."""
    from celery.signals import worker_process_init

    assert all(receiver() is not task_start.warm_up for _, receiver in worker_process_init.receivers)


def test_celery_warms_up_before_it_creates_the_pool(task_start, monkeypatch):
    from celery import Celery
    from celery.signals import worker_init
    from celery.worker.components import Pool

    class PoolCreatedError(Exception):
        pass

    def create_pool(*_: object) -> None:
        assert prepared
        raise PoolCreatedError

    prepared: list[object] = []
    worker_init.connect(lambda sender, **_: prepared.append(sender), weak=False, dispatch_uid="test")
    monkeypatch.setattr(Pool, "create", create_pool)
    try:
        with pytest.raises(PoolCreatedError):
            Celery(broker="memory://").Worker(pool="prefork", concurrency=1)
    finally:
        worker_init.disconnect(dispatch_uid="test")


def test_pool_process_freezes_its_inherited_objects(task_start):
    from celery.signals import worker_process_init

    assert any(receiver() is task_start.freeze for _, receiver in worker_process_init.receivers)
    before = gc.get_freeze_count()
    try:
        task_start.freeze(sender=None, signal=None)
        assert gc.get_freeze_count() > before
    finally:
        gc.unfreeze()
