"""A task's process finds built what every task needs, and it works as upstream's own."""

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
ASK = """
{load}
decorators = "airflow.sdk.definitions.decorators" in sys.modules
one, other = (comms.CommsDecoder(log=None, socket=None) for _ in range(2))
queued = [TypeAdapter[ExecutorWorkload](ExecutorWorkload).validator for _ in range(2)]  # as execute_workload
decoders = one.body_decoder is other.body_decoder, queued[0] is queued[1]

def answers():
    _, yes, no, _ = _abc._get_dump(Mapping)
    return len(yes) + len(no)

before = answers()
OTLPSpanExporter(endpoint="http://127.0.0.1:1/", timeout=0.01).export(())
sending = answers() == before
handler, path, loaded = signal.getsignal(signal.SIGSEGV), list(sys.path), set(sys.modules)
bag = DagBag({dag!r}, safe_mode=False, load_op_links=False, bundle_path={folder!r}, bundle_name="b")
import airflow.sdk.definitions.asset.metadata  # as the execution of a Python function does
reading = len(bag.dags) == 1 and len(set(sys.modules) - loaded) == 1  # the DAG's own
untouched = handler == signal.SIG_DFL and {folder!r} not in path
print(*decoders, decorators, sending, reading, untouched)
"""
"""In a process of its own: the patch is for a whole process."""
REHEARSED = ROOT / "src/airflow_ha/patches"
LOAD = (
    "from airflow_ha.patches import prepare_task_fork as task_start; task_start.apply(); "
    "task_start.rehearse(sender=None, signal=None)"
)


@pytest.fixture(scope="module")
def ready():
    """What is ready before a task, with and without the patch.

    Whether two tasks' decoders are one, of messages and of what the queue holds; whether the decorators are there
    before a DAG is read; whether Python has an answer for each class that the sending of spans asks about; whether a
    DAG that is read loads nothing but itself; and whether the process is otherwise as it was.
    """
    dag = ROOT / "dags/canary_dag.py"
    scripts = [ASK.format(load=load, dag=str(dag), folder=str(REHEARSED)) for load in (LOAD, "")]
    ours, upstreams = in_forks(IMPORTS, scripts)
    return SimpleNamespace(ours=ours, upstreams=upstreams)


def test_what_every_task_needs_is_there_before_it(ready):
    assert ready.ours == "True True True True True True"


def test_upstream_still_makes_them_for_each_task(ready):
    """When this fails, Airflow has fixed it: delete airflow_ha.patches.prepare_task_fork and this file."""
    assert ready.upstreams == "False False False False False True"


@pytest.fixture
def task_start():
    """Our module, without its effect on the tests' own process."""
    from airflow.executors.workloads import ExecutorWorkload

    with applied("prepare_task_fork") as module:
        yield module
    for name in ("core_schema", "validator", "serializer"):
        delattr(ExecutorWorkload, f"__pydantic_{name}__")


def test_template_fields_come_out_as_upstreams(task_start):
    from airflow.sdk.execution_time import task_runner
    from pydantic import TypeAdapter

    task = SimpleNamespace(template_fields=("args", "where"), args=[1, {"b": None, "a": (2, "x")}], where="{{ ds }}")
    assert task_runner.TypeAdapter is task_start.adapter
    ours = task_runner._serialize_rendered_fields(task)
    task_runner.TypeAdapter = TypeAdapter
    assert ours == task_runner._serialize_rendered_fields(task)
    assert ours == {"args": [1, {"a": [2, "x"], "b": None}], "where": "{{ ds }}"}


def test_a_message_is_decoded_as_upstreams(task_start):
    from airflow.sdk.execution_time import comms
    from pydantic import TypeAdapter

    message = {"type": "VariableResult", "key": "k", "value": "v"}
    assert task_start.adapter(comms.ToTask).validate_python(message) == TypeAdapter(comms.ToTask).validate_python(
        message
    )


def test_what_the_queue_holds_is_decoded_as_upstreams(task_start):
    from airflow.executors.workloads import ExecutorWorkload
    from pydantic import TypeAdapter, ValidationError

    assert TypeAdapter(ExecutorWorkload).validator is task_start.adapter(ExecutorWorkload).validator
    with pytest.raises(ValidationError, match="does not match any of the expected tags"):
        TypeAdapter(ExecutorWorkload).validate_json('{"type": "other"}')


def test_main_process_prepares_and_freezes_before_the_fork(task_start):
    from celery.signals import worker_init

    ours = [receiver() for _, receiver in worker_init.receivers]
    assert ours.index(task_start.rehearse) < ours.index(task_start.freeze)


def test_a_process_of_the_pool_rehearses_nothing(task_start):
    """Celery kills one that is not up in time: a starved host would kill each, and start it again for ever."""
    from celery.signals import worker_process_init

    assert all(receiver() is not task_start.rehearse for _, receiver in worker_process_init.receivers)


def test_celery_prepares_before_it_makes_the_pool(task_start, monkeypatch):
    from celery import Celery
    from celery.signals import worker_init
    from celery.worker.components import Pool

    class MadeThePoolError(Exception):
        pass

    def make(*_: object) -> None:
        assert prepared
        raise MadeThePoolError

    prepared: list[object] = []
    worker_init.connect(lambda sender, **_: prepared.append(sender), weak=False, dispatch_uid="test")
    monkeypatch.setattr(Pool, "create", make)
    try:
        with pytest.raises(MadeThePoolError):
            Celery(broker="memory://").Worker(pool="prefork", concurrency=1)
    finally:
        worker_init.disconnect(dispatch_uid="test")


def test_what_a_workers_process_was_born_with_is_left_out_of_collections(task_start):
    from celery.signals import worker_process_init

    assert any(receiver() is task_start.freeze for _, receiver in worker_process_init.receivers)
    before = gc.get_freeze_count()
    try:
        task_start.freeze(sender=None, signal=None)
        assert gc.get_freeze_count() > before
    finally:
        gc.unfreeze()
