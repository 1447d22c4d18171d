"""A sleeping scheduler wakes on commits that it acts on, and on nothing else."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import queue
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import sqlalchemy
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from airflow_ha.patches import engines
from airflow_ha.patches import scheduler_notify_wakeup as scheduler_wake

RUN, TASK = scheduler_wake.RUN, scheduler_wake.TASK


@pytest.mark.parametrize(
    ("statement", "parameters", "expected_event"),
    [
        ("INSERT INTO dag_run (dag_id) VALUES (%(dag_id)s)", {"dag_id": "a"}, RUN),
        ("INSERT INTO dag_run_note (user_id) VALUES (%(user_id)s)", {"user_id": 1}, None),
        ("UPDATE dag_run SET state=%(state)s", {"state": "queued"}, RUN),
        ("UPDATE dag_run SET state=%(state)s", {"state": "running"}, None),
        ("UPDATE dag SET is_paused=%(is_paused)s", {"is_paused": False}, RUN),
        ("UPDATE dag SET is_paused=%(is_paused)s", {"is_paused": True}, None),
        ("UPDATE dag SET last_parsed_time=%(last_parsed_time)s", {"last_parsed_time": 1}, None),
        ("UPDATE slot_pool SET slots=%(slots)s", {"slots": 8}, TASK),
        ("UPDATE task_instance SET state=%(state)s", {"state": "success"}, TASK),
        ("UPDATE task_instance SET state=%(state)s", [{"state": "running"}, {"state": "scheduled"}], TASK),
        ("UPDATE task_instance SET state=%(state)s", {"state": "running"}, None),
        ("UPDATE task_instance SET last_heartbeat_at=%(last_heartbeat_at)s", {"last_heartbeat_at": 1}, None),
        ("UPDATE task_instance SET state=NULL", (), None),
        ("SELECT state FROM task_instance", {"state": "success"}, None),
    ],
)
def test_only_released_work_is_an_event(statement, parameters, expected_event):
    assert scheduler_wake.wakeup_event(statement, parameters) == expected_event


@pytest.fixture
def notifying(monkeypatch):
    """The patch, applied as in an API server."""
    monkeypatch.setattr(engines, "_METADATA", [])
    scheduler_wake.notify_on_commit()


@pytest.fixture
def database(tmp_path, monkeypatch, notifying):
    """A database with tasks that passes for Postgres, and the notifications sent to it."""
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/database", paramstyle="named")
    engines.metadata_engine_created(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE task_instance (state TEXT)")
        connection.exec_driver_sql("CREATE TABLE dag_run (state TEXT)")
    engine.dialect.name = "postgresql"
    notifications: list[str] = []
    execute = Connection.exec_driver_sql

    def record_notify(connection, statement, *arguments):
        if statement.startswith("NOTIFY"):
            notifications.append(statement)
            return None
        return execute(connection, statement, *arguments)

    monkeypatch.setattr(Connection, "exec_driver_sql", record_notify)
    return engine, notifications


FINISH_TASK = sqlalchemy.text("UPDATE task_instance SET state=:state")


def test_commit_notifies_once_per_transaction(database):
    engine, notifications = database
    with engine.begin() as connection:
        connection.execute(FINISH_TASK, {"state": "success"})
        connection.execute(FINISH_TASK, {"state": "failed"})
        assert notifications == []
    assert notifications == [f"NOTIFY {scheduler_wake.CHANNEL}, 'task'"]


def test_run_event_replaces_a_task_event(database):
    engine, notifications = database
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE dag_run SET state=:state"), {"state": "queued"})
        connection.execute(FINISH_TASK, {"state": "success"})
    assert notifications == [f"NOTIFY {scheduler_wake.CHANNEL}, 'run'"]


def test_rolled_back_change_does_not_notify(database):
    engine, notifications = database
    with engine.connect() as connection:
        connection.execute(FINISH_TASK, {"state": "success"})
        connection.rollback()
        connection.execute(FINISH_TASK, {"state": "running"})
        connection.commit()
    assert notifications == []


class CutServer:
    """A Postgres server that records statements and cuts each connection at its third statement."""

    OK = b"R\0\0\0\x08\0\0\0\0"
    READY = b"Z\0\0\0\x05"

    def __init__(self) -> None:
        self.notifications: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # closed by the test
            while True:
                connection, _ = self._socket.accept()
                with connection, connection.makefile("rwb") as stream:
                    self._answer(stream)

    def _answer(self, stream) -> None:
        stream.read(struct.unpack("!i", stream.read(4))[0] - 4)
        settings = self._setting("client_encoding", "UTF8") + self._setting("DateStyle", "ISO")
        stream.write(self.OK + settings + self.READY + b"I")
        for _ in range(2):
            stream.flush()
            self._next(stream)
            stream.write(b"C" + struct.pack("!i", 5) + b"\0" + self.READY + b"T")
        stream.flush()
        self._next(stream)

    def _next(self, stream) -> None:
        _, length = struct.unpack("!ci", stream.read(5))
        self.notifications.append(stream.read(length - 4).rstrip(b"\0").decode())

    def _setting(self, name: str, value: str) -> bytes:
        pair = f"{name}\0{value}\0".encode()
        return b"S" + struct.pack("!i", 4 + len(pair)) + pair


@pytest.fixture
def cut_server():
    server = CutServer()
    yield server
    server.close()


def test_rollback_after_a_lost_connection_raises_nothing(cut_server, notifying):
    url = f"postgresql+psycopg2://a@127.0.0.1:{cut_server.port}/a?sslmode=disable&gssencmode=disable"
    # The queries of SQLAlchemy's first connection are excluded.
    engine = sqlalchemy.create_engine(url, use_native_hstore=False, _initialize=False)
    engines.metadata_engine_created(engine)
    with Session(engine) as session:
        for _ in range(2):  # the second connection replaces the first
            session.execute(FINISH_TASK, {"state": "success"})
            with pytest.raises(sqlalchemy.exc.OperationalError, match="closed the connection"):
                session.execute(FINISH_TASK, {"state": "failed"})
            session.rollback()
    assert cut_server.notifications == 2 * [
        "BEGIN",
        "UPDATE task_instance SET state='success'",
        "UPDATE task_instance SET state='failed'",
    ]


class Postgres:
    """A connection as psycopg2 provides it, on which a test sends notifications."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.notifies: list[SimpleNamespace] = []
        self.statements: list[str] = []

    @property
    def dbapi_connection(self) -> Postgres:
        return self

    def detach(self) -> None:
        """Do nothing: there is no pool."""

    def cursor(self) -> Postgres:
        return self

    def execute(self, statement: str) -> None:
        self.statements.append(statement)

    def poll(self) -> None:
        if not self.theirs.recv(1):
            raise ConnectionError("server closed the connection unexpectedly")
        self.notifies.append(SimpleNamespace(payload=TASK))

    def fileno(self) -> int:
        return self.theirs.fileno()

    def close(self) -> None:
        self.theirs.close()


@pytest.fixture
def postgres(monkeypatch):
    """The connection that a scheduler uses."""
    from airflow import settings

    connection = Postgres()
    monkeypatch.setattr(settings, "get_engine", lambda: SimpleNamespace(raw_connection=lambda: connection))
    yield connection
    connection.ours.close()


def test_listener_wakes_until_the_connection_is_lost(postgres):
    postgres.ours.send(b"!!")
    postgres.ours.close()
    wakeups: list[str] = []
    with pytest.raises(ConnectionError):
        scheduler_wake.listen_for_events(wakeups.append)
    # RUN comes first: an event may have been missed before.
    assert (postgres.statements, wakeups) == ([f"LISTEN {scheduler_wake.CHANNEL}"], [RUN, TASK, TASK])
    assert postgres.fileno() == -1


def test_silent_connection_is_probed(postgres, monkeypatch):
    monkeypatch.setattr(scheduler_wake, "PROBE_SECONDS", 0.01)

    def execute(statement: str) -> None:
        postgres.statements.append(statement)
        if statement == "SELECT 1":
            postgres.ours.close()

    monkeypatch.setattr(postgres, "execute", execute)
    with pytest.raises(ConnectionError):
        scheduler_wake.listen_for_events(lambda _: None)
    assert postgres.statements[1:] == ["SELECT 1"]


def never() -> None:
    """Return None: no run is due."""


class Channel:
    """A fake notification channel that can be lost."""

    def __init__(self) -> None:
        self.wake_functions: queue.Queue[Callable[[str], None]] = queue.Queue()
        self.losses: queue.Queue[type[Exception]] = queue.Queue()

    def __call__(self, wake: Callable[[str], None]) -> None:
        self.wake_functions.put(wake)
        raise self.losses.get()


@pytest.fixture
def channel(monkeypatch):
    monkeypatch.setattr(scheduler_wake, "RETRY_SECONDS", 0.01)
    return Channel()


LONG = 30.0


def test_sleeping_scheduler_wakes_on_an_event(channel):
    sleep = scheduler_wake.Sleep(channel, never)
    threading.Thread(target=lambda: channel.wake_functions.get()(TASK)).start()
    before = time.monotonic()
    sleep(LONG)
    assert time.monotonic() - before < LONG / 2


def test_lost_channel_is_listened_to_again(channel):
    channel.losses.put(ConnectionError)
    sleep = scheduler_wake.Sleep(channel, never)
    sleep(0)
    channel.wake_functions.get(timeout=5)
    wake = channel.wake_functions.get(timeout=5)
    wake(TASK)
    before = time.monotonic()
    sleep(LONG)
    assert time.monotonic() - before < LONG / 2


def test_scheduler_without_an_event_sleeps_its_full_time(channel):
    before = time.monotonic()
    scheduler_wake.Sleep(channel, never)(0.2)
    assert time.monotonic() - before >= 0.2


@pytest.mark.parametrize(
    ("worked", "sleep_seconds", "rest_seconds"), [(0.05, LONG, 0.05), (0.2, LONG, 0.6), (0.2, 0.05, 0.05)]
)
def test_woken_scheduler_rests_no_longer_than_its_sleep(channel, worked, sleep_seconds, rest_seconds):
    sleep = scheduler_wake.Sleep(channel, never)
    sleep(0)
    wake = channel.wake_functions.get(timeout=5)
    time.sleep(worked)
    wake(TASK)
    before = time.monotonic()
    sleep(sleep_seconds)
    assert rest_seconds <= time.monotonic() - before < rest_seconds + LONG / 2


@pytest.mark.parametrize(("event", "rest_seconds"), [(RUN, 0.2), (TASK, 0.6)])
def test_run_event_shortens_the_rest_after_a_long_loop(channel, event, rest_seconds):
    sleep = scheduler_wake.Sleep(channel, never)
    sleep(0)
    wake = channel.wake_functions.get(timeout=5)
    time.sleep(0.2)
    wake(event)
    before = time.monotonic()
    sleep.rest_before_loop()
    rested = time.monotonic() - before
    assert rested >= rest_seconds
    if event == RUN:
        assert rested < 0.6
    # The event counts for one loop only.
    time.sleep(0.2)
    before = time.monotonic()
    sleep.rest_before_loop()
    assert time.monotonic() - before >= 0.6


def test_scheduler_that_found_pools_locked_does_not_sleep(channel):
    sleep = scheduler_wake.Sleep(channel, never)
    sleep(0)
    counts: list[object] = []
    incr = scheduler_wake.wrap_incr(lambda stat, **tags: counts.append((stat, tags)), sleep)
    incr("another", tags={})
    assert not sleep._event.is_set()
    incr(scheduler_wake.LOCKED_COUNTER)
    before = time.monotonic()
    sleep(LONG)
    assert time.monotonic() - before < LONG / 2
    assert counts == [("another", {"tags": {}}), (scheduler_wake.LOCKED_COUNTER, {})]


@pytest.mark.parametrize(
    ("sleep_seconds", "until_due", "expected_seconds"),
    [(LONG, 0.1, 0.1), (0.2, LONG, 0.2), (0.2, None, 0.2), (LONG, -1.0, 0.0)],
)
def test_scheduler_wakes_when_a_run_is_due(channel, sleep_seconds, until_due, expected_seconds):
    before = time.monotonic()
    scheduler_wake.Sleep(channel, lambda: until_due)(sleep_seconds)
    assert expected_seconds <= time.monotonic() - before < expected_seconds + LONG / 2


@pytest.fixture
def dags(monkeypatch):
    """Return a function that adds a DAG to a scheduler's database."""
    from airflow import settings

    importlib.import_module("airflow.models.dag")  # imported later, it would keep this session for other tests
    engine = sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.StaticPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE dag (next_dagrun_create_after, is_paused, is_stale)")
    monkeypatch.setattr(settings, "Session", lambda: Session(engine))

    def add(seconds: float, paused: int = 0, stale: int = 0) -> None:
        at = f"{datetime.now(UTC) + timedelta(seconds=seconds):%Y-%m-%d %H:%M:%S.%f}"
        with engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO dag VALUES (?, ?, ?)", (at, paused, stale))

    add.engine = engine
    return add


def test_next_due_run_excludes_overdue_and_paused_dags(dags):
    assert scheduler_wake.seconds_until_due() is None
    dags(300)
    dags(60)
    dags(-60)  # overdue: waits for an earlier run
    dags(10, paused=1)
    dags(20, stale=1)
    assert 40 < scheduler_wake.seconds_until_due() < 62  # SQLite's clock has seconds


def test_failing_due_query_returns_none(dags):
    with dags.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE dag")
    assert scheduler_wake.seconds_until_due() is None


class Clock:
    """A clock that advances only by working and sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)

    def wait(self, seconds: float) -> None:
        """Wait for an event that never arrives."""
        self.sleep(seconds)

    def clear(self) -> None:
        """Clear that event."""


def test_rest_grows_with_the_previous_loop(channel, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(scheduler_wake, "time", clock)
    sleep = scheduler_wake.Sleep(channel, never)
    sleep._run_event = clock
    wakeups: list[object] = []
    timer = scheduler_wake.wrap_timer(lambda stat, **tags: wakeups.append((stat, clock.now, tags)), sleep)
    for worked in (0.05, 0.2, 7.0):
        timer(scheduler_wake.LOOP_TIMER, tags={})
        clock.now += worked
    timer("another", tags={})
    sleep.rest_before_loop()
    assert clock.slept == pytest.approx([0, 0.05, 0.2, 0.4, scheduler_wake.MAX_REST_SECONDS])
    # The timer starts after the rest.
    assert [at for _, at, _ in wakeups] == pytest.approx([0, 0.1, 0.9, 7.9])


@pytest.mark.parametrize(
    ("worked", "factor", "idle_cores", "rest_seconds"),
    [
        (0.2, 3.0, 0.0, 0.6),
        (0.2, 3.0, 0.5, 0.3),
        (0.2, 3.0, 1.0, 0.0),
        (0.2, 3.0, 62.0, 0.0),
        (0.2, 3.0, -0.1, 0.6),
        (0.2, 1.0, 0.0, 0.2),
        (0.05, 3.0, 0.0, 0.05),
        (0.05, 3.0, 1.0, 0.0),
        (0.05, 0.0, 0.0, 0.0),
        (0.2, 0.0, 0.0, 0.0),
    ],
)
def test_idle_core_or_zero_factor_removes_the_rest(worked, factor, idle_cores, rest_seconds):
    assert scheduler_wake.rest_after(worked, factor, idle_cores) == pytest.approx(rest_seconds)


def test_idle_cores_cover_the_last_window(monkeypatch):
    clock, idle = Clock(), iter([100.0, 103.0, 103.5])
    monkeypatch.setattr(scheduler_wake, "time", clock)
    cores = scheduler_wake.IdleCores(lambda: next(idle))
    counts = []
    for passed in (0.5, 1.5, 0.5, 0.5):
        clock.now += passed
        counts.append(cores())
    assert counts == pytest.approx([0.0, 1.5, 1.5, 0.5])


def test_idle_time_counts_usable_cores_only(tmp_path, monkeypatch):
    stat = tmp_path / "stat"
    stat.write_text(
        "cpu  9 9 9 900 90 9 9 9 0 0\n"
        "cpu0 1 1 1 100 10 1 1 1 0 0\n"
        "cpu1 1 1 1 200 20 1 1 1 0 0\n"
        "cpu10 1 1 1 600 60 1 1 1 0 0\n"
        "intr 5 5\n"
    )
    monkeypatch.setattr(scheduler_wake, "PROC_STAT", stat)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(os, "sysconf", lambda _: 100)
    assert scheduler_wake.idle_seconds() == pytest.approx(3.3)


def test_idle_time_does_not_exceed_core_time():
    started, idle = time.monotonic(), scheduler_wake.idle_seconds()
    time.sleep(0.2)  # measured interval
    longest = (time.monotonic() - started + 0.05) * len(os.sched_getaffinity(0))
    assert 0 <= scheduler_wake.idle_seconds() - idle <= longest


@pytest.mark.parametrize(
    ("factor", "idle", "rest_seconds"), [("", 0.0, 0.6), ("1", 0.0, 0.2), ("0", 0.0, 0.0), ("", 1.0, 0.0)]
)
def test_rest_follows_the_setting_and_idle_cores(monkeypatch, factor, idle, rest_seconds):
    from airflow.jobs import scheduler_job_runner

    monkeypatch.setenv(scheduler_wake.REST_FACTOR, factor)
    monkeypatch.setattr(scheduler_wake, "IdleCores", lambda: lambda: idle)
    for name in ("time", "stats"):
        monkeypatch.setattr(scheduler_job_runner, name, getattr(scheduler_job_runner, name))
    scheduler_wake.install_sleep()
    assert scheduler_job_runner.time.sleep._rest_after(0.2) == pytest.approx(rest_seconds)


def test_scheduler_that_slept_does_not_rest(channel, monkeypatch):
    clock = Clock()
    sleep = scheduler_wake.Sleep(channel, never)
    sleep(0)
    monkeypatch.setattr(scheduler_wake, "time", clock)
    sleep._loop_started = clock.now
    sleep.rest_before_loop()
    assert clock.slept == [0]


def test_upstream_loop_starts_with_the_wrapped_timer():
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

    source = inspect.getsource(SchedulerJobRunner._run_scheduler_loop)
    begin = f'            with stats.timer("{scheduler_wake.LOOP_TIMER}") as timer:\n'
    assert source.count(begin) == 1
    assert source.index("for loop_count in") < source.index(begin) < source.index("self._do_scheduling(session)")


def test_upstream_sleeps_after_finding_pools_locked():
    # If this fails, upstream is fixed: delete `wrap_incr`.
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

    source = inspect.getsource(SchedulerJobRunner._do_scheduling)
    locked = f'stats.incr("{scheduler_wake.LOCKED_COUNTER}")\n                        session.rollback()\n'
    assert f"{locked}                        return 0" in source
    assert "idle_in_this_run = not num_queued_tis" in inspect.getsource(SchedulerJobRunner._run_scheduler_loop)


def test_upstream_sleeps_through_events():
    # If this fails, upstream is fixed: delete the patch.
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

    source = inspect.getsource(SchedulerJobRunner._run_scheduler_loop)
    assert "time.sleep(min(self._scheduler_idle_sleep_time, next_event or 0))" in source


LOADED = """
import airflow.jobs.scheduler_job_runner
from airflow import settings
from airflow_ha.patches import scheduler_notify_wakeup as scheduler_wake
from sqlalchemy import create_engine, event
assert not event.contains(create_engine("sqlite://"), "commit", scheduler_wake._notify)
print(event.contains(settings.get_engine(), "commit", scheduler_wake._notify))
"""


@pytest.mark.processes
@pytest.mark.parametrize(("component", "is_attached"), [("execution-api", True), ("scheduler", False)])
def test_only_api_servers_notify_on_commit(component, is_attached):
    done = subprocess.run(
        [sys.executable, "-c", LOADED],
        env={**os.environ, "AIRFLOW_HA_COMPONENT": component, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.split()[-1] == str(is_attached)
