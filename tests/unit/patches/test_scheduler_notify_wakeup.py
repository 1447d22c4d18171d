"""A scheduler that sleeps is woken by what others commit for it, and by nothing else."""

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
    ("statement", "parameters", "work"),
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
def test_a_run_and_the_end_of_a_task_are_work(statement, parameters, work):
    assert scheduler_wake.work(statement, parameters) == work


@pytest.fixture
def announcing(monkeypatch):
    """As in an API server."""
    monkeypatch.setattr(engines, "_METADATA", [])
    scheduler_wake.announce()


@pytest.fixture
def database(tmp_path, monkeypatch, announcing):
    """A database with tasks, which passes for Postgres; and what was said on its channel."""
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/database", paramstyle="named")
    engines.metadata_engine_created(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE task_instance (state TEXT)")
        connection.exec_driver_sql("CREATE TABLE dag_run (state TEXT)")
    engine.dialect.name = "postgresql"
    said: list[str] = []
    execute = Connection.exec_driver_sql

    def heard(connection, statement, *more):
        if statement.startswith("NOTIFY"):
            said.append(statement)
            return None
        return execute(connection, statement, *more)

    monkeypatch.setattr(Connection, "exec_driver_sql", heard)
    return engine, said


END = sqlalchemy.text("UPDATE task_instance SET state=:state")


def test_what_is_committed_is_said_once_a_transaction(database):
    engine, said = database
    with engine.begin() as connection:
        connection.execute(END, {"state": "success"})
        connection.execute(END, {"state": "failed"})
        assert said == []
    assert said == [f"NOTIFY {scheduler_wake.CHANNEL}, 'task'"]


def test_a_run_is_said_before_all_else(database):
    engine, said = database
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE dag_run SET state=:state"), {"state": "queued"})
        connection.execute(END, {"state": "success"})
    assert said == [f"NOTIFY {scheduler_wake.CHANNEL}, 'run'"]


def test_what_is_rolled_back_is_not_said(database):
    engine, said = database
    with engine.connect() as connection:
        connection.execute(END, {"state": "success"})
        connection.rollback()
        connection.execute(END, {"state": "running"})
        connection.commit()
    assert said == []


class CutServer:
    """A Postgres server of 3 statements a connection: it cuts the connection at the third, and keeps what was said."""

    OK = b"R\0\0\0\x08\0\0\0\0"
    READY = b"Z\0\0\0\x05"

    def __init__(self) -> None:
        self.said: list[str] = []
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
        self.said.append(stream.read(length - 4).rstrip(b"\0").decode())

    def _setting(self, name: str, value: str) -> bytes:
        pair = f"{name}\0{value}\0".encode()
        return b"S" + struct.pack("!i", 4 + len(pair)) + pair


@pytest.fixture
def cut_server():
    server = CutServer()
    yield server
    server.close()


def test_a_rollback_after_a_cut_connection_raises_nothing(cut_server, announcing):
    url = f"postgresql+psycopg2://a@127.0.0.1:{cut_server.port}/a?sslmode=disable&gssencmode=disable"
    # Without what SQLAlchemy asks at the first connection.
    engine = sqlalchemy.create_engine(url, use_native_hstore=False, _initialize=False)
    engines.metadata_engine_created(engine)
    with Session(engine) as session:
        for _ in range(2):  # the second connection is the first one's successor
            session.execute(END, {"state": "success"})
            with pytest.raises(sqlalchemy.exc.OperationalError, match="closed the connection"):
                session.execute(END, {"state": "failed"})
            session.rollback()
    assert cut_server.said == 2 * [
        "BEGIN",
        "UPDATE task_instance SET state='success'",
        "UPDATE task_instance SET state='failed'",
    ]


class Postgres:
    """A connection on which a test says things: a socket, and psycopg2's words."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.notifies: list[SimpleNamespace] = []
        self.asked: list[str] = []

    @property
    def dbapi_connection(self) -> Postgres:
        return self

    def detach(self) -> None:
        """The pool forgets it."""

    def cursor(self) -> Postgres:
        return self

    def execute(self, statement: str) -> None:
        self.asked.append(statement)

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
    """The connection that a scheduler gets."""
    from airflow import settings

    connection = Postgres()
    monkeypatch.setattr(settings, "get_engine", lambda: SimpleNamespace(raw_connection=lambda: connection))
    yield connection
    connection.ours.close()


def test_it_listens_and_is_told_of_what_is_said_until_the_connection_is_lost(postgres):
    postgres.ours.send(b"!!")
    postgres.ours.close()
    told: list[str] = []
    with pytest.raises(ConnectionError):
        scheduler_wake.hear(told.append)
    # A run at the beginning: something may have been said before.
    assert (postgres.asked, told) == ([f"LISTEN {scheduler_wake.CHANNEL}"], [RUN, TASK, TASK])
    assert postgres.fileno() == -1


def test_a_silent_channel_is_asked_whether_it_is_still_there(postgres, monkeypatch):
    monkeypatch.setattr(scheduler_wake, "QUIET_SECONDS", 0.01)

    def execute(statement: str) -> None:
        postgres.asked.append(statement)
        if statement == "SELECT 1":
            postgres.ours.close()

    monkeypatch.setattr(postgres, "execute", execute)
    with pytest.raises(ConnectionError):
        scheduler_wake.hear(lambda _: None)
    assert postgres.asked[1:] == ["SELECT 1"]


def never() -> None:
    """No run is due."""


class Channel:
    """What a scheduler hears; it can be lost."""

    def __init__(self) -> None:
        self.heard_from: queue.Queue[Callable[[str], None]] = queue.Queue()
        self.ends: queue.Queue[type[Exception]] = queue.Queue()

    def __call__(self, wake: Callable[[str], None]) -> None:
        self.heard_from.put(wake)
        raise self.ends.get()


@pytest.fixture
def channel(monkeypatch):
    monkeypatch.setattr(scheduler_wake, "RETRY_SECONDS", 0.01)
    return Channel()


LONG = 30.0


def test_a_scheduler_that_sleeps_is_woken_by_work(channel):
    sleep = scheduler_wake.Sleep(channel, never)
    threading.Thread(target=lambda: channel.heard_from.get()(TASK)).start()
    before = time.monotonic()
    sleep(LONG)
    assert time.monotonic() - before < LONG / 2


def test_a_channel_that_is_lost_is_heard_again(channel):
    channel.ends.put(ConnectionError)
    sleep = scheduler_wake.Sleep(channel, never)
    sleep(0)
    channel.heard_from.get(timeout=5)
    wake = channel.heard_from.get(timeout=5)
    wake(TASK)
    before = time.monotonic()
    sleep(LONG)
    assert time.monotonic() - before < LONG / 2


def test_without_work_it_sleeps_as_long_as_it_would(channel):
    before = time.monotonic()
    scheduler_wake.Sleep(channel, never)(0.2)
    assert time.monotonic() - before >= 0.2


@pytest.mark.parametrize(("worked", "would_sleep", "rests"), [(0.05, LONG, 0.05), (0.2, LONG, 0.6), (0.2, 0.05, 0.05)])
def test_woken_it_rests_first_and_no_longer_than_it_would_have_slept(channel, worked, would_sleep, rests):
    sleep = scheduler_wake.Sleep(channel, never)
    sleep(0)
    wake = channel.heard_from.get(timeout=5)
    time.sleep(worked)
    wake(TASK)
    before = time.monotonic()
    sleep(would_sleep)
    assert rests <= time.monotonic() - before < rests + LONG / 2


@pytest.mark.parametrize(("what", "rests"), [(RUN, 0.2), (TASK, 0.6)])
def test_after_a_long_round_it_rests_no_longer_than_that_took_when_a_run_is_to_begin(channel, what, rests):
    sleep = scheduler_wake.Sleep(channel, never)
    sleep(0)
    wake = channel.heard_from.get(timeout=5)
    time.sleep(0.2)
    wake(what)
    before = time.monotonic()
    sleep.between_rounds()
    assert rests <= time.monotonic() - before < rests + 0.2
    # That was for this round.
    time.sleep(0.2)
    before = time.monotonic()
    sleep.between_rounds()
    assert time.monotonic() - before >= 0.6


def test_one_that_found_the_pools_locked_does_not_sleep(channel):
    sleep = scheduler_wake.Sleep(channel, never)
    sleep(0)
    counted: list[object] = []
    incr = scheduler_wake.counted(lambda stat, **tags: counted.append((stat, tags)), sleep)
    incr("another", tags={})
    assert not sleep._work.is_set()
    incr(scheduler_wake.LOCKED)
    before = time.monotonic()
    sleep(LONG)
    assert time.monotonic() - before < LONG / 2
    assert counted == [("another", {"tags": {}}), (scheduler_wake.LOCKED, {})]


@pytest.mark.parametrize(
    ("would_sleep", "coming", "sleeps"), [(LONG, 0.1, 0.1), (0.2, LONG, 0.2), (0.2, None, 0.2), (LONG, -1.0, 0.0)]
)
def test_it_wakes_when_a_run_is_due(channel, would_sleep, coming, sleeps):
    before = time.monotonic()
    scheduler_wake.Sleep(channel, lambda: coming)(would_sleep)
    assert sleeps <= time.monotonic() - before < sleeps + LONG / 2


@pytest.fixture
def dags(monkeypatch):
    """What a scheduler asks its database, on one of its own with some DAGs."""
    from airflow import settings

    importlib.import_module("airflow.models.dag")  # imported later, it would keep the session below for all other tests
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


def test_the_next_run_is_the_first_that_is_not_due_yet(dags):
    assert scheduler_wake.due() is None
    dags(300)
    dags(60)
    dags(-60)  # waits for a run before it to end
    dags(10, paused=1)
    dags(20, stale=1)
    assert 40 < scheduler_wake.due() < 62  # SQLite's clock has seconds


def test_a_database_that_does_not_say_is_no_fault_of_the_schedulers(dags):
    with dags.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE dag")
    assert scheduler_wake.due() is None


class Clock:
    """Time that passes only by working and sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)

    def wait(self, seconds: float) -> None:
        """For an event that does not come."""
        self.sleep(seconds)

    def clear(self) -> None:
        """Of that event."""


def test_between_two_rounds_it_rests_the_longer_the_longer_the_one_before_took(channel, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(scheduler_wake, "time", clock)
    sleep = scheduler_wake.Sleep(channel, never)
    sleep._run = clock
    told: list[object] = []
    timer = scheduler_wake.rested(lambda stat, **tags: told.append((stat, clock.now, tags)), sleep)
    for worked in (0.05, 0.2, 7.0):
        timer(scheduler_wake.ROUND, tags={})
        clock.now += worked
    timer("another", tags={})
    sleep.between_rounds()
    assert clock.slept == pytest.approx([0, 0.05, 0.2, 0.4, scheduler_wake.LONGEST_REST])
    # The rest is over when the round is timed.
    assert [at for _, at, _ in told] == pytest.approx([0, 0.1, 0.9, 7.9])


@pytest.mark.parametrize(
    ("worked", "factor", "idle_cores", "rests"),
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
def test_a_whole_idle_core_or_a_factor_of_0_ends_all_rest(worked, factor, idle_cores, rests):
    assert scheduler_wake.rest_after(worked, factor, idle_cores) == pytest.approx(rests)


def test_idle_cores_are_those_of_the_last_window(monkeypatch):
    clock, idle = Clock(), iter([100.0, 103.0, 103.5])
    monkeypatch.setattr(scheduler_wake, "time", clock)
    cores = scheduler_wake.IdleCores(lambda: next(idle))
    counted = []
    for passed in (0.5, 1.5, 0.5, 0.5):
        clock.now += passed
        counted.append(cores())
    assert counted == pytest.approx([0.0, 1.5, 1.5, 0.5])


def test_only_cores_that_the_process_may_use_are_idle_for_it(tmp_path, monkeypatch):
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


def test_idle_time_is_no_more_than_the_cores_have():
    started, idle = time.monotonic(), scheduler_wake.idle_seconds()
    time.sleep(0.2)  # what is measured over
    most = (time.monotonic() - started + 0.05) * len(os.sched_getaffinity(0))
    assert 0 <= scheduler_wake.idle_seconds() - idle <= most


@pytest.mark.parametrize(("given", "idle", "rests"), [("", 0.0, 0.6), ("1", 0.0, 0.2), ("0", 0.0, 0.0), ("", 1.0, 0.0)])
def test_a_schedulers_rest_follows_its_setting_and_idle_cores(monkeypatch, given, idle, rests):
    from airflow.jobs import scheduler_job_runner

    monkeypatch.setenv(scheduler_wake.REST_FACTOR, given)
    monkeypatch.setattr(scheduler_wake, "IdleCores", lambda: lambda: idle)
    for name in ("time", "stats"):
        monkeypatch.setattr(scheduler_job_runner, name, getattr(scheduler_job_runner, name))
    scheduler_wake.listen()
    assert scheduler_job_runner.time.sleep._rest_after(0.2) == pytest.approx(rests)


def test_after_a_sleep_it_needs_no_rest(channel, monkeypatch):
    clock = Clock()
    sleep = scheduler_wake.Sleep(channel, never)
    sleep(0)
    monkeypatch.setattr(scheduler_wake, "time", clock)
    sleep._begun = clock.now
    sleep.between_rounds()
    assert clock.slept == [0]


def test_each_round_of_upstreams_begins_with_what_is_rested_before():
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

    source = inspect.getsource(SchedulerJobRunner._run_scheduler_loop)
    begin = f'            with stats.timer("{scheduler_wake.ROUND}") as timer:\n'
    assert source.count(begin) == 1
    assert source.index("for loop_count in") < source.index(begin) < source.index("self._do_scheduling(session)")


def test_upstream_counts_the_rounds_in_which_the_pools_were_locked_and_then_sleeps():
    # When it no longer does, `counted` can go.
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

    source = inspect.getsource(SchedulerJobRunner._do_scheduling)
    locked = f'stats.incr("{scheduler_wake.LOCKED}")\n                        session.rollback()\n'
    assert f"{locked}                        return 0" in source
    assert "idle_in_this_run = not num_queued_tis" in inspect.getsource(SchedulerJobRunner._run_scheduler_loop)


def test_upstream_still_sleeps_through_it():
    # When it no longer does, the patch can go.
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

    source = inspect.getsource(SchedulerJobRunner._run_scheduler_loop)
    assert "time.sleep(min(self._scheduler_idle_sleep_time, next_event or 0))" in source


LOADED = """
import airflow.jobs.scheduler_job_runner
from airflow import settings
from airflow_ha.patches import scheduler_notify_wakeup as scheduler_wake
from sqlalchemy import create_engine, event
assert not event.contains(create_engine("sqlite://"), "commit", scheduler_wake._commit)
print(event.contains(settings.get_engine(), "commit", scheduler_wake._commit))
"""


@pytest.mark.parametrize(("component", "says"), [("execution-api", True), ("scheduler", False)])
def test_api_servers_say_what_they_commit(component, says):
    done = subprocess.run(
        [sys.executable, "-c", LOADED],
        env={**os.environ, "AIRFLOW_HA_COMPONENT": component, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.split()[-1] == str(says)
