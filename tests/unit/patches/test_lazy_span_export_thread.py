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
LOAD = "from airflow_ha.patches import lazy_span_export_thread as patch; patch.apply()"
SHORT = "end('one', 'two'); provider.force_flush()"
CASES = {
    "loaded first": (SHORT, LOAD, ""),
    "loaded after the processor": (SHORT, "", LOAD),
    "upstream's": (SHORT, "", ""),
    "long": ("end('one'); time.sleep(0.25); end('two'); sent(2)", LOAD, ""),
    "a full batch": ("end(*'abcd'); sent(4)", LOAD, ""),
    "a shutdown without a thread": ("end('one'); provider.shutdown()", LOAD, ""),
    "a shutdown with it": ("end(*'abcd'); end('one'); provider.shutdown()", LOAD, ""),
}
"""What a forked process does, and where the patch is loaded: before the processor is made, or after it."""


@pytest.fixture(scope="module")
def told():
    """Of each case's process: whether it began without a thread, the spans it sent, and its threads at the end."""
    scripts = [MADE.format(then=then, load=load, load_late=late) for then, load, late in CASES.values()]
    return dict(zip(CASES, map(json.loads, in_forks(IMPORTS, scripts)), strict=True))


@pytest.mark.parametrize("case", ["loaded first", "loaded after the processor"])
def test_a_short_task_sends_its_spans_at_its_end_and_never_starts_the_thread(told, case):
    assert told[case] == [True, ["one", "two"], 0]


def test_upstream_still_starts_it_at_the_fork(told):
    """When this fails, OpenTelemetry has fixed it: delete lazy_span_export_thread and this file."""
    assert told["upstream's"] == [False, ["one", "two"], 1]


def test_a_long_task_sends_them_while_it_runs(told):
    assert told["long"] == [True, ["one", "two"], 1]


def test_a_full_batch_is_sent_at_once(told):
    assert told["a full batch"] == [True, list("abcd"), 1]


@pytest.mark.parametrize("case", ["a shutdown without a thread", "a shutdown with it"])
def test_a_shutdown_sends_what_is_left(told, case):
    assert "one" in told[case][1]
