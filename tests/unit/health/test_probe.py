"""The probe in each Airflow container distinguishes healthy, unhealthy and a failed dependency."""

from __future__ import annotations

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from airflow_ha.health import __main__ as probe
from airflow_ha.health import blocked_slots, dependencies
from ops.compose import suspended_tasks, waits_for
from ops.project import ROOT


@pytest.fixture
def server():
    """An HTTP server on a free port that responds with the status in the path."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(int(self.path.strip("/")))
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        yield httpd.server_address[1]
        httpd.shutdown()


def verdict(*arguments: str) -> int:
    """Return the probe's exit code."""
    try:
        probe.main(list(arguments))
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_status_200_is_healthy(server):
    assert verdict("http", str(server), "/200") == 0


def test_error_or_refused_connection_is_unhealthy(server):
    assert verdict("http", str(server), "/500") == 1
    assert verdict("http", "1", "/200") == 1


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-x 200\r\n", b"HTTP/1.1 abc\r\n"])
def test_response_that_is_not_http_is_unhealthy(answer):
    with socket.create_server(("127.0.0.1", 0)) as other:

        def respond() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(answer)

        threading.Thread(target=respond).start()
        assert verdict("http", str(other.getsockname()[1]), "/200") == 1


@pytest.mark.parametrize(("age", "code"), [(5.0, 0), (31.0, 1)])
def test_liveness_of_a_reachable_component_is_that_of_its_probe(monkeypatch, age, code):
    monkeypatch.setattr(dependencies, "job_heartbeat_age", lambda _: age)
    assert verdict("liveness", "job", "TriggererJob") == code


def test_liveness_holds_during_an_outage_of_the_database(monkeypatch):
    def unavailable(_: str) -> float:
        raise dependencies.DatabaseDownError("refused")

    monkeypatch.setattr(dependencies, "job_heartbeat_age", unavailable)
    assert verdict("job", "TriggererJob") == probe.DEPENDENCY_DOWN
    assert verdict("liveness", "job", "TriggererJob") == 0


def test_unknown_probe_is_unhealthy_and_prints_the_usage(capsys):
    assert verdict("gateway") == 1
    assert "http PORT PATH" in capsys.readouterr().out


@pytest.mark.parametrize(("age", "code"), [(5.0, 0), (31.0, 1), (None, 1)])
def test_job_is_healthy_while_its_heartbeat_is_fresh(monkeypatch, age, code):
    monkeypatch.setattr(dependencies, "job_heartbeat_age", lambda _: age)
    assert verdict("job", "DagProcessorJob") == code


@pytest.fixture
def no_database(monkeypatch, tmp_path):
    secret = tmp_path / "sql_alchemy_conn"
    secret.write_text("postgresql+psycopg2://airflow:x@127.0.0.1:1/airflow")
    monkeypatch.setattr(dependencies, "SECRETS", tmp_path)


@pytest.mark.usefixtures("no_database")
def test_job_in_a_database_outage_is_not_unhealthy():
    assert verdict("job", "TriggererJob") == os.EX_TEMPFAIL


@pytest.mark.usefixtures("no_database")
def test_scheduler_503_in_a_database_outage_is_not_unhealthy(server, monkeypatch):
    monkeypatch.setattr(probe, "http_status", lambda *_: 503)
    assert verdict("scheduler") == os.EX_TEMPFAIL


def test_scheduler_503_with_a_healthy_database_is_unhealthy(monkeypatch):
    monkeypatch.setattr(probe, "http_status", lambda *_: 503)
    monkeypatch.setattr(dependencies, "job_heartbeat_age", lambda _: 40.0)
    assert verdict("scheduler") == 1


@pytest.fixture
def consumption(monkeypatch, tmp_path):
    file = tmp_path / "consumption"
    monkeypatch.setattr(probe, "CONSUMPTION_FILE", str(file))
    return file


def consumed(file, seconds_ago: float) -> None:
    file.touch()
    os.utime(file, (time.time() - seconds_ago,) * 2)


def test_worker_that_consumed_recently_is_healthy(consumption):
    consumed(consumption, 3)
    assert verdict("worker") == 0


@pytest.mark.parametrize("age", [3, 60])
def test_suspended_tasks_of_a_worker_are_always_printed(consumption, monkeypatch, capsys, age):
    """The output has the form that `./ops/stack status` parses."""
    monkeypatch.setattr(dependencies, "is_broker_up", lambda: False)
    monkeypatch.setattr(blocked_slots, "blocked_slots", lambda: 2)
    consumed(consumption, age)
    assert verdict("worker") == (0 if age == 3 else os.EX_TEMPFAIL)
    assert suspended_tasks([{"Output": capsys.readouterr().out}]) == 2


def test_each_stopped_task_blocks_one_slot(tmp_path):
    """Four tasks: one stopped in two processes, one stopped in one, one running, and one that has just exited."""
    processes = {"1": "S 0", "7": "S 1", "8": "S 1", "9": "S 1", "70": "T 7", "71": "T 70", "80": "T 8", "90": "R 9"}
    for pid, rest in processes.items():
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "stat").write_text(f"{pid} (a) T (b) {rest} 1 1 0\n")
    (tmp_path / "91").mkdir()
    (tmp_path / "meminfo").touch()
    assert blocked_slots.blocked_slots(str(tmp_path)) == 2


def test_stopped_process_blocks_a_slot(tmp_path):
    process = subprocess.Popen(["sleep", "60"])
    try:
        (tmp_path / str(process.pid)).symlink_to(f"/proc/{process.pid}")  # excludes processes of other tests
        assert blocked_slots.blocked_slots(str(tmp_path)) == 0
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        assert blocked_slots.blocked_slots(str(tmp_path)) == 1
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("broker", "code"), [(True, 1), (False, os.EX_TEMPFAIL)])
def test_worker_not_consuming_is_unhealthy_unless_redis_is_down(consumption, monkeypatch, broker, code):
    consumed(consumption, 60)
    monkeypatch.setattr(dependencies, "is_broker_up", lambda: broker)
    assert verdict("worker") == code


def test_worker_that_finishes_its_tasks_is_healthy(consumption, monkeypatch, tmp_path):
    consumed(consumption, 31)
    (tmp_path / "stopping").touch()
    monkeypatch.setattr(probe, "STOPPING_FILE", str(tmp_path / "stopping"))
    assert verdict("worker") == 0


def test_worker_that_never_consumed_is_unhealthy(consumption, monkeypatch, capsys):
    monkeypatch.setattr(dependencies, "is_broker_up", lambda: True)
    assert verdict("worker") == 1
    assert "not consumed its queues yet" in capsys.readouterr().out


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the probe as Docker does, without installed packages."""
    command = [sys.executable, "-S", "-X", "importtime", "-m", "airflow_ha.health", *arguments]
    environment = {"PYTHONPATH": str(ROOT / "src"), "PATH": os.environ["PATH"]}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def imported(stderr: str) -> set[str]:
    """Return the imported modules from the output of `-X importtime`."""
    return {line.rpartition("|")[2].strip() for line in stderr.splitlines() if line.startswith("import time:")}


def test_healthy_probe_imports_no_slow_module(server):
    ended = run("http", str(server), "/200")
    assert ended.returncode == 0, ended.stdout
    assert "socket" in imported(ended.stderr)
    assert not imported(ended.stderr) & {"airflow", "re", "pathlib", "typing", "psycopg2", "site"}


def test_database_probe_imports_the_driver_but_not_airflow():
    ended = run("job", "TriggererJob")
    assert "psycopg2" in imported(ended.stderr)
    assert "airflow" not in imported(ended.stderr)
    assert "/run/secrets/sql_alchemy_conn" in ended.stderr  # it fails only here, at the missing secret


def consumer(*, connected=True, polled=("default",), in_cycle=True, subscribed=("default",)):
    """Return a fake Celery consumer on kombu's Redis transport with the attributes that the record reads."""
    channel = SimpleNamespace(active_queues=set(polled))
    channels = {id(channel): channel} if in_cycle else {}
    cycle = SimpleNamespace(_channels=list(channels.values()))
    channel.connection = SimpleNamespace(cycle=cycle)
    queues = [SimpleNamespace(name=name) for name in subscribed]
    return SimpleNamespace(
        connection=SimpleNamespace(connected=connected),
        task_consumer=SimpleNamespace(channel=channel, queues=queues),
    )


@pytest.fixture(scope="module")
def consumed_queues():
    from airflow_ha.health.consumption_record import consumed_queues

    return consumed_queues


def test_subscribed_and_polled_queue_is_consumed(consumed_queues):
    assert consumed_queues(consumer(polled=["default", "gpu"], subscribed=["default", "gpu"])) == (
        "default",
        "gpu",
    )


@pytest.mark.parametrize(
    "broken",
    [{"connected": False}, {"polled": ()}, {"in_cycle": False}, {"subscribed": ()}],
    ids=["connection lost", "no active queues (#63580)", "channel not polled", "subscribed to none"],
)
def test_consumer_that_takes_no_messages_consumes_no_queue(consumed_queues, broken):
    assert consumed_queues(consumer(**broken)) == ()


def test_consumer_between_connections_consumes_no_queue(consumed_queues):
    assert consumed_queues(SimpleNamespace(connection=None, task_consumer=None)) == ()


def test_server_of_another_address_is_asked_there(monkeypatch):
    with socket.create_server(("127.0.0.2", 0)) as listener:
        port = listener.getsockname()[1]

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        monkeypatch.setattr(probe, "outer_address", lambda: "127.0.0.2")
        probe.main(["http", str(port), "/health", "frontend"])
        thread.join(5)
        with pytest.raises(SystemExit, match="1"):
            probe.main(["http", str(port), "/health"])


def test_outer_address_is_that_of_the_route_outside():
    program = "from airflow_ha.health.__main__ import outer_address; print(outer_address())"
    # A network of its own: the second interface has the route.
    setup = (
        "ip link add name inner type veth peer name outer && "
        "ip addr add 10.1.0.2/24 dev inner && ip link set inner up && "
        "ip addr add 10.2.0.2/24 dev outer && ip link set outer up && ip route add default dev outer"
    )
    script = f'{setup} && exec "$0" -S -c "{program}"'
    result = subprocess.run(
        ["unshare", "--net", "sh", "-c", script, sys.executable],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    if result.returncode != 0:
        pytest.skip(f"no network namespace here: {result.stderr.strip()}")
    assert result.stdout.strip() == "10.2.0.2"


@pytest.mark.parametrize(("age", "code"), [(60, 0), (7 * 3600, 1), (None, 1)])
def test_maintenance_is_healthy_while_it_works_or_waits(monkeypatch, tmp_path, capsys, age, code):
    """The output has the form that `./ops/stack status` parses."""
    file = tmp_path / "maintenance"
    monkeypatch.setattr(probe, "MAINTENANCE_FILE", str(file))
    if age is not None:
        file.write_text("waits for approval")
        os.utime(file, (time.time() - age,) * 2)
    assert verdict("maintenance") == code
    if code == 0:
        log = [{"Output": capsys.readouterr().out}]
        assert waits_for(log) == "waits for approval"
