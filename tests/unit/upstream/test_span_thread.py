"""A forked process has no thread for its spans until it needs one, and loses none."""

from __future__ import annotations

import json

import pytest

from tests.unit.forks import in_forks

IMPORTS = """
import json, os, threading, time
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
"""
MADE = """
{load}
exporter = InMemorySpanExporter()
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=200, max_export_batch_size=4))
tracer = provider.get_tracer("a task's")
{load_late}
reader, writer = os.pipe()
if not os.fork():
    alone = threading.active_count() == 1
    names = lambda: [span.name for span in exporter.get_finished_spans()]
    def end(*names):
        for name in names:
            tracer.start_span(name).end()
    def sent(number):
        end = time.monotonic() + 10
        while len(names()) < number and time.monotonic() < end:
            time.sleep(0.01)
    {then}
    os.write(writer, json.dumps([alone, names(), threading.active_count() - 1]).encode())
    os._exit(0)
os.wait()
print(os.read(reader, 1000).decode())
"""
LOAD = "import airflow_ha.upstream.span_thread"
SHORT = "end('one', 'two'); provider.force_flush()"


def told(then: str, load: str = LOAD, load_late: str = "") -> list[object]:
    """Of a forked process: whether it began without a thread, the spans it sent, and its threads at the end."""
    found: list[object] = json.loads(in_forks(IMPORTS, [MADE.format(load=load, load_late=load_late, then=then)])[0])
    return found


@pytest.mark.parametrize(("load", "late"), [(LOAD, ""), ("", LOAD)], ids=["loaded first", "loaded after the processor"])
def test_a_short_task_sends_its_spans_at_its_end_and_never_starts_the_thread(load, late):
    assert told(SHORT, load, late) == [True, ["one", "two"], 0]


def test_upstream_still_starts_it_at_the_fork():
    """When this fails, OpenTelemetry has mended it: delete span_thread and this file."""
    assert told(SHORT, load="") == [False, ["one", "two"], 1]


def test_a_long_task_sends_them_while_it_runs():
    assert told("end('one'); time.sleep(0.25); end('two'); sent(2)") == [True, ["one", "two"], 1]


def test_a_full_batch_is_sent_at_once():
    assert told("end(*'abcd'); sent(4)") == [True, list("abcd"), 1]


@pytest.mark.parametrize("before", ["end('one')", "end(*'abcd'); end('one')"], ids=["without a thread", "with it"])
def test_a_shutdown_sends_what_is_left(before):
    assert "one" in told(f"{before}; provider.shutdown()")[1]
