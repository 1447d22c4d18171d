"""Airflow's StatsD client tags metrics, works after a fork, and does no harm without an exporter."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import threading
from datetime import timedelta
from unittest.mock import Mock

import pytest

from airflow_ha.telemetry import statsd
from airflow_ha.telemetry.exporter_address import LOOKUP_INTERVAL
from airflow_ha.telemetry.statsd import TaggedStatsClient

OURS = "component:scheduler,airflow_instance:0123456789ab"


@pytest.fixture
def client(exporter):
    return TaggedStatsClient(exporter.host, exporter.port, "airflow", False)


def test_one_metric_is_one_packet_with_dogstatsd_tags(client, exporter):
    client.incr("ti.finish,dag_id=d,task_id=t,state=success")
    assert exporter.packet() == f"airflow.ti.finish:1|c|#dag_id:d,task_id:t,state:success,{OURS}"
    assert exporter.is_silent()


@pytest.mark.parametrize(
    ("call", "number"),
    [
        (lambda c: c.incr("m"), "1|c"),
        (lambda c: c.incr("m", 5), "5|c"),
        (lambda c: c.decr("m", 2), "-2|c"),
        (lambda c: c.timing("m", 1500), "1500.000000|ms"),
        (lambda c: c.timing("m", timedelta(seconds=1.5)), "1500.000000|ms"),
        (lambda c: c.gauge("m", 7), "7|g"),
        (lambda c: c.gauge("m", 7.5), "7.5|g"),
        (lambda c: c.gauge("m", 2, delta=True), "+2|g"),
        (lambda c: c.gauge("m", -2, delta=True), "-2|g"),
        (lambda c: c.set("m", "user|1"), "user_1|s"),
    ],
)
def test_each_metric_kind_equals_that_of_the_base_class(client, exporter, call, number):
    call(client)
    assert exporter.packet() == f"airflow.m:{number}|#{OURS}"


def test_negative_gauge_is_set_to_0_first_in_the_same_packet(client, exporter):
    client.gauge("m,a=b", -3)
    assert exporter.packet().split("\n") == [f"airflow.m:0|g|#a:b,{OURS}", f"airflow.m:-3|g|#a:b,{OURS}"]


def test_timer_sends_milliseconds(client, exporter):
    with client.timer("m,a=b"):
        pass
    name, kind, tags = exporter.packet().split("|")
    assert float(name.removeprefix("airflow.m:")) < 10_000
    assert (kind, tags) == ("ms", f"#a:b,{OURS}")


def test_pipeline_packs_tagged_lines_up_to_the_packet_limit(client, exporter):
    with client.pipeline() as batch:
        for number in range(20):
            batch.incr(f"m,a={number}")
    lines = []
    while len(lines) < 20:
        packet = exporter.packet()
        assert len(packet) <= 512
        lines += packet.split("\n")
    assert lines == [f"airflow.m:1|c|#a:{number},{OURS}" for number in range(20)]


def test_rate_comes_before_the_tags(client, exporter, monkeypatch):
    monkeypatch.setattr(statsd.random, "random", lambda: 0.4)
    client.incr("m", rate=0.5)
    assert exporter.packet() == f"airflow.m:1|c|@0.5|#{OURS}"
    client.incr("m", rate=0.3)
    assert exporter.is_silent()


def test_cache_of_lines_is_bounded_in_a_flood_of_tags(client, exporter):
    for number in range(10_000):
        client.incr(f"m,run={number}")
    assert len(client._lines) <= statsd.CACHE_LIMIT


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.incr(None),
        lambda c: c.incr(7),
        lambda c: c.decr("m", None),
        lambda c: c.timing("m", "long"),
        lambda c: c.timing("m", None),
        lambda c: c.gauge("m", None),
        lambda c: c.gauge("m", "high"),
        lambda c: c.gauge("m\ud800", 1),
        lambda c: c.incr("m", rate="often"),
    ],
)
def test_invalid_arguments_raise_no_error(client, exporter, call):
    call(client)
    client.incr("after")
    while "after" not in exporter.packet():
        pass


def test_missing_component_is_unknown(exporter, monkeypatch):
    monkeypatch.delenv("AIRFLOW_HA_COMPONENT")
    TaggedStatsClient(exporter.host, exporter.port, None).incr("m")
    assert "component:unknown," in exporter.packet()


def test_ipv6_is_off_unless_airflow_passes_it_as_fourth():
    ipv4, ipv6 = TaggedStatsClient("::1", 9125, "airflow", False), TaggedStatsClient("::1", 9125, "airflow", True)
    assert ipv4._address.current is None
    assert ipv6._address.current == ("::1", 9125, 0, 0)


# Fork


def test_forked_child_uses_its_own_socket(client, exporter):
    client.incr("parent")
    exporter.packet()
    pid = os.fork()
    if pid == 0:
        before = client._sock
        client.incr("child")
        os._exit(0 if client._sock is not before else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert exporter.packet() == f"airflow.child:1|c|#{OURS}"
    client.incr("parent")
    assert exporter.packet() == f"airflow.parent:1|c|#{OURS}"


TASK = """
    import os, sys, uuid, structlog
    from types import SimpleNamespace
    from airflow_ha.telemetry.statsd import TaggedStatsClient
    from airflow.sdk.execution_time import supervisor, task_runner

    client = TaggedStatsClient("127.0.0.1", int(sys.argv[1]), "airflow", False)
    client.incr("m")

    def main():
        def initialized(**_):
            client.incr("m")
            TaggedStatsClient("127.0.0.1", int(sys.argv[1]), "airflow", False).incr("m")
            os._exit(0)

        task_runner.stats = SimpleNamespace(initialize=initialized)
        task_runner.main()

    log = structlog.get_logger()
    task = supervisor.WatchedSubprocess.start(target=main, logger=log, id=uuid.uuid4())
    os.waitpid(task.pid, 0)
    client.incr("m")
"""


@pytest.mark.processes
def test_worker_is_component_worker_and_its_task_is_task(exporter):
    environment = {**os.environ, "AIRFLOW_HA_COMPONENT": "worker"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(TASK), str(exporter.port)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    components = [exporter.packet().partition("component:")[2].partition(",")[0] for _ in range(4)]
    assert components == ["worker", "task", "task", "worker"]


# An exporter that is absent, late or moves


@pytest.fixture
def name_server(monkeypatch):
    """The address of `exporter`, or None for an error; a lookup waits while `open` is clear."""
    server = Mock(address=None, open=threading.Event(), real=socket.getaddrinfo)
    server.open.set()

    def getaddrinfo(host, port, family, kind, protocol, flags):
        if host != b"exporter":
            return server.real(host, port, family, kind, protocol, flags)
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not numeric")
        assert server.open.wait(10)
        if server.address is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(family, kind, protocol, "", (server.address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield server
    server.open.set()


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(statsd.Address.refresh.__globals__["time"], "monotonic", lambda: now[0])
    return now


def wait_for_lookup(client):
    for thread in threading.enumerate():
        if thread.name == "statsd-address":
            thread.join(10)
    return client


def test_metrics_sent_before_the_first_lookup_ends_arrive(exporter, name_server):
    name_server.address = exporter.host
    name_server.open.clear()
    client = TaggedStatsClient("exporter", exporter.port, "airflow", False)
    for number in range(3):
        client.incr(f"m,a={number}")
    assert exporter.is_silent()
    name_server.open.set()
    assert [exporter.packet() for _ in range(3)] == [f"airflow.m:1|c|#a:{number},{OURS}" for number in range(3)]


def test_queue_is_bounded_and_dropped_without_an_exporter(name_server):
    name_server.open.clear()
    client = TaggedStatsClient("exporter", 9125, "airflow", False)
    for _ in range(statsd.QUEUE_LIMIT + 10):
        client.incr("m")
    assert len(client._queue) == statsd.QUEUE_LIMIT
    name_server.open.set()
    wait_for_lookup(client)
    client.incr("m")
    assert len(client._queue) == 0


def test_exporter_that_starts_later_is_found(exporter, name_server, clock):
    client = wait_for_lookup(TaggedStatsClient("exporter", exporter.port, "airflow", False))
    client.incr("lost")
    name_server.address = exporter.host
    clock[0] += LOOKUP_INTERVAL
    name_server.open.clear()
    client.incr("lost")
    name_server.open.set()
    wait_for_lookup(client).incr("after")
    assert exporter.packet().startswith("airflow.after:")


def test_exporter_that_changes_its_address_is_followed(open_exporter, name_server, clock):
    first = open_exporter("127.0.0.1")
    name_server.address = "127.0.0.1"
    client = wait_for_lookup(TaggedStatsClient("exporter", first.port, "airflow", False))
    client.incr("m")
    first.packet()
    second = open_exporter("127.0.0.2", first.port)
    first.socket.close()
    name_server.address = "127.0.0.2"
    clock[0] += LOOKUP_INTERVAL
    name_server.open.clear()
    client.incr("lost")
    name_server.open.set()
    wait_for_lookup(client).incr("after")
    assert second.packet().startswith("airflow.after:")


def test_exporter_restart_loses_only_metrics_in_between(open_exporter):
    first = open_exporter()
    client = TaggedStatsClient(first.host, first.port, "airflow", False)
    client.incr("m")
    first.packet()
    first.socket.close()
    for _ in range(100):
        client.incr("lost")
    second = open_exporter(first.host, first.port)
    client.incr("after")
    assert second.packet().startswith("airflow.after:")
    assert second.is_silent()


def test_full_buffer_drops_and_does_not_block(client, exporter):
    client.incr("m")
    assert client._sock.getblocking() is False
    client._sock = Mock()
    client._sock.sendto.side_effect = BlockingIOError
    client.incr("m")
    assert client._sock.sendto.call_count == 1


@pytest.mark.parametrize("fault", [OSError(24, "Too many open files"), PermissionError()])
def test_socket_error_loses_only_one_metric(client, exporter, monkeypatch, fault):
    with monkeypatch.context() as patched:
        patched.setattr(socket, "socket", Mock(side_effect=fault))
        client.incr("lost")
    client.incr("after")
    assert exporter.packet().startswith("airflow.after:")


def test_call_after_close_sends_nothing_and_raises_nothing(client, exporter):
    client.incr("m")
    exporter.packet()
    client.close()
    client.incr("m")
    client.close()
    assert exporter.is_silent()
