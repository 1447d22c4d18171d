"""A task's process finds built what every task needs.

The fault, in Airflow 3.3.2: each task runs in a process of its own, forked from a worker's, and each makes anew what is
the same for all: pydantic's decoder of the supervisor's messages, twice (`airflow.sdk.execution_time.comms`), that of
a JSON value for each template field (`task_runner`), and the import of the decorators behind `from airflow.sdk import
task`. A quarter of the CPU time of a task that does little. A seventh is the first `isinstance(…, Mapping)` of each
class, which asks all of Mapping's hundreds of subclasses: `requests`, which sends the task's spans, asks it of several.
The same is so of reading the DAG: the first one that a process reads takes a half longer than the next. Python's
collector, which looks at every object, then makes the kernel copy the memory that the fork had shared. The worker's
process itself makes a decoder of what the queue holds, for each task too.

The work-round: each decoder is built once, before the fork, and shared; the decorators are imported before it; spans
are sent once to nowhere, and a DAG of our own is read, so that Python knows those answers. The worker's
main process does all of this before it forks its pool, and leaves its objects out of collections
(https://docs.python.org/3/library/gc.html#gc.freeze), so that the pool's processes share them. An idle worker with 8
slots holds 340 MiB instead of 410.
Measured on 2 cores: 0.105 CPU-seconds of the worker for a no-op task became 0.087 by the first and the last; to read
the benches' DAG takes 10 ms instead of 15.

No upstream issue was found. It can go when the test `test_task_start.py` says that upstream shares them.
Loaded by workers through `imports` in Celery's settings (compose/airflow.yaml).
"""

from __future__ import annotations

import functools
import gc
import signal
from http import HTTPStatus
from pathlib import Path
from typing import Any

import airflow.sdk.definitions.asset.metadata
import airflow.sdk.definitions.decorators  # noqa: F401 (both are loaded before the fork)
import msgspec
import requests
from airflow.dag_processing.dagbag import DagBag
from airflow.executors.workloads import ExecutorWorkload
from airflow.sdk.execution_time import comms, task_runner
from celery.signals import worker_init, worker_process_init
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from pydantic import JsonValue, TypeAdapter
from requests.adapters import HTTPAdapter

SHARED = (comms.ToTask, JsonValue)
"""What every task's process decodes."""
REHEARSAL = Path(__file__).with_name("warmup_dag.py")


@functools.cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    """Pydantic's decoder of a type, built once: it has no state of its own."""
    return TypeAdapter(kind)


def remember(kind: Any) -> None:
    """Gives a type its decoder, which pydantic then finds there, as with a model, instead of building one."""
    known = adapter(kind)
    kind.__pydantic_core_schema__ = known.core_schema
    kind.__pydantic_validator__ = known.validator
    kind.__pydantic_serializer__ = known.serializer


class Nowhere(HTTPAdapter):
    """Takes what is to be sent as far as that goes without a network."""

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """As upstream's, up to the connection; says that all is well."""
        request.headers.copy()
        response = requests.Response()
        response.status_code = HTTPStatus.OK
        return response


def rehearse(**_: Any) -> None:
    """Does what every task's process does, for what Python keeps of it with the classes."""
    msgspec.msgpack.Decoder(comms._ResponseFrame)
    session = requests.Session()
    session.mount("http://", Nowhere())
    OTLPSpanExporter(endpoint="http://nowhere/", session=session).export(())
    handler = signal.getsignal(signal.SIGSEGV)
    # As task_runner.parse, but for the path that it adds to sys.path.
    DagBag(REHEARSAL, safe_mode=False, load_op_links=False, bundle_path=REHEARSAL.parent, bundle_name="rehearsal")
    signal.signal(signal.SIGSEGV, handler or signal.SIG_DFL)  # reading a DAG sets one


def freeze(**_: Any) -> None:
    """Leaves all that a worker's process has by now out of collections, its own and those of the tasks it forks."""
    gc.freeze()


def apply() -> None:
    """Build the decoders, and prepare the rest before the pool is forked."""
    for kind in SHARED:
        adapter(kind)
    for module in (comms, task_runner):
        module.TypeAdapter = adapter
    remember(ExecutorWorkload)
    # Celery sends worker_init in the main process before it starts the pool, and import_modules before that.
    worker_init.connect(rehearse)
    worker_init.connect(freeze)
    worker_process_init.connect(freeze)
