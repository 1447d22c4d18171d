"""An idle scheduler wakes on events, not only on a timer, and a busy one leaves CPU to tasks.

Problem: an idle scheduler always sleeps for `scheduler_idle_sleep_time` (1 s), so each step of a run waits half a
second on average. A shorter sleep costs CPU all day. A busy scheduler starts its next loop at once, even for one task.
A scheduler that finds the pools locked queues nothing, and sleeps as if it were idle.
Patch: components NOTIFY schedulers in commits that they act on. A scheduler also wakes when a scheduled run is due. So
the sleep is 2 s, and only covers other events, such as a finished `retry_delay`. A scheduler that found the pools
locked does not sleep. While no core is idle, it rests between loops (`rest_after`).
Cost: Postgres serialises commits that NOTIFY until the commit is on disk, also on the synchronous replica. On 2 busy
cores, with a replica on the same disk, about 1,700 completions a second instead of 7,300 (`./ops/stack bench commits`).
Applies to: Airflow 3.3.2, `airflow.jobs.scheduler_job_runner`; the metadata engine of the components that notify.
Upstream issue: none found.
Remove when: `test_upstream_sleeps_through_events` fails.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import select
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from airflow_ha.patches.engines import on_metadata_engine

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

log = logging.getLogger(__name__)

NOTIFYING: Final = frozenset({"api-server", "execution-api", "triggerer"})
"""Components whose commits wake schedulers; a scheduler handles its own changes."""
CHANNEL: Final = "airflow_ha_scheduler"
RELEASING_STATES: Final = frozenset(
    {"success", "failed", "skipped", "upstream_failed", "removed", "up_for_retry", "scheduled"}
)
"""Task states after which the task, or another, may start."""
STARTABLE_STATES: Final = frozenset({"queued"})
"""Run states in which a run waits to start."""
RUN: Final = "run"
"""Payload: a run may start."""
TASK: Final = "task"
"""Payload: a task may start, or a run finished."""
NOTIFYING_STATEMENTS: Final[Mapping[str, tuple[str, Callable[[Mapping[str, object]], bool]]]] = {
    "INSERT INTO dag_run ": (RUN, lambda _: True),
    "UPDATE dag_run SET ": (RUN, lambda row: row.get("state") in STARTABLE_STATES),
    "UPDATE dag SET ": (RUN, lambda row: row.get("is_paused") is False),
    "UPDATE slot_pool SET ": (TASK, lambda _: True),
    "UPDATE task_instance SET ": (TASK, lambda row: row.get("state") in RELEASING_STATES),
}
"""By statement prefix: the payload, and the condition on a row's parameters."""
PROBE_SECONDS: Final = 10.0
"""Seconds without an event after which the connection is probed."""
RETRY_SECONDS: Final = 1.0
DUE_MARGIN_SECONDS: Final = 0.01
"""Seconds added to the due time, because the database compares it with its own clock."""
LOOP_TIMER: Final = "scheduler.scheduler_loop_duration"
"""Upstream's timer metric of one scheduler loop."""
LOCKED_COUNTER: Final = "scheduler.critical_section_busy"
"""Upstream's counter of loops that found the pools locked."""
LONG_LOOP_SECONDS: Final = 0.1
"""Seconds; a loop for a run of a few tasks takes half of it."""
MAX_REST_SECONDS: Final = 1.0
"""Longest rest between two loops of a busy scheduler; equal to upstream's sleep of an idle one."""
REST_FACTOR: Final = "AIRFLOW_HA_SCHEDULER_REST_FACTOR"
"""Environment variable: factor of the rest after a long loop; 0 disables the rest."""
DEFAULT_REST_FACTOR: Final = 3.0
IDLE_SLEEP: Final = "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME"
IDLE_SLEEP_SECONDS: Final = "2"
"""Default, twice upstream's: the sleep only covers changes without a notification."""
IDLE_WINDOW_SECONDS: Final = 1.0
"""Shortest window for idle cores, because the kernel counts their time in hundredths of a second."""
PROC_STAT: Final = Path("/proc/stat")

_PENDING_EVENT = "airflow_ha_work"


def wakeup_event(statement: str, parameters: object) -> str | None:
    """Return the payload for a statement that schedulers act on: RUN, TASK or None.

    Args:
        statement: SQL of Airflow's models and APIs.
        parameters: The parameters of one row, by name, or of several rows.
    """
    if not statement.startswith(("UPDATE ", "INSERT ")):  # most statements of an API server return here
        return None
    event_and_condition = next(
        (entry for prefix, entry in NOTIFYING_STATEMENTS.items() if statement.startswith(prefix)), None
    )
    if event_and_condition is None:
        return None
    payload, releases = event_and_condition
    rows = [parameters] if isinstance(parameters, Mapping) else parameters
    is_released = isinstance(rows, Sequence) and any(isinstance(row, Mapping) and releases(row) for row in rows)
    return payload if is_released else None


def _record_event(connection: Connection, _cursor: object, statement: str, parameters: object, *_more: object) -> None:
    if (payload := wakeup_event(statement, parameters)) and connection.info.get(_PENDING_EVENT) != RUN:
        connection.info[_PENDING_EVENT] = payload


def _notify(connection: Connection) -> None:
    if (payload := connection.info.pop(_PENDING_EVENT, None)) and connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"NOTIFY {CHANNEL}, '{payload}'")


def _discard_event(connection: Connection) -> None:
    if not connection.invalidated:  # then reading `info` raises PendingRollbackError
        connection.info.pop(_PENDING_EVENT, None)


def notify_on_commit() -> None:
    """Notify schedulers of the commits of this process to the metadata database from now on."""
    on_metadata_engine(_attach)


def _attach(engine: Engine) -> None:
    event.listen(engine, "before_cursor_execute", _record_event)
    event.listen(engine, "commit", _notify)
    event.listen(engine, "rollback", _discard_event)


def listen_for_events(wake: Callable[[str], None]) -> None:
    """Listen on the channel until the connection is lost.

    Args:
        wake: Called with RUN or TASK for each event, and once at the start for events that were missed before.

    Raises:
        Exception: The driver's error for a lost connection.
    """
    from airflow import settings

    fairy = settings.get_engine().raw_connection()
    fairy.detach()  # it never returns to the pool
    connection: Any = fairy.dbapi_connection
    with contextlib.closing(connection):
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(f"LISTEN {CHANNEL}")
        wake(RUN)
        while True:
            while not connection.notifies:
                if not select.select([connection], [], [], PROBE_SECONDS)[0]:
                    cursor.execute("SELECT 1")
                connection.poll()
            while connection.notifies:
                wake(connection.notifies.pop(0).payload)


def seconds_until_due() -> float | None:
    """Return the seconds until the next scheduled run is due; None if there is none, or if the query fails.

    Runs that are already due wait for something else, so they do not count.
    """
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session

    at = DagModel.next_dagrun_create_after
    now = sqlalchemy.type_coerce(sqlalchemy.func.now(), at.type)
    next_due = sqlalchemy.select(sqlalchemy.func.min(at), now).where(
        at > now, DagModel.is_paused.is_(False), DagModel.is_stale.is_(False)
    )
    try:
        with create_session() as session:
            first, queried_at = session.execute(next_due).one()
    except SQLAlchemyError as error:
        log.warning("cannot query when the next run is due: %s", str(error).strip())
        return None
    return (first - queried_at).total_seconds() if first else None


def idle_seconds() -> float:
    """Return the total idle time, since boot, of the cores that this process may use.

    It excludes time that a hypervisor gave to others, and cores that the container's `cpuset` excludes.
    """
    cores = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    fields = (line.split() for line in PROC_STAT.read_text(encoding="ascii").splitlines() if line.startswith("cpu"))
    ticks = sum(int(idle) + int(iowait) for name, _, _, _, idle, iowait, *_ in fields if name in cores)
    return ticks / os.sysconf("SC_CLK_TCK")


class IdleCores:
    """The number of recently idle cores, such as 0.5; 0 until the first window has passed.

    Args:
        idle_seconds: Returns the total idle time of all cores.
    """

    def __init__(self, idle_seconds: Callable[[], float] = idle_seconds) -> None:
        self._idle_seconds = idle_seconds
        self._window_start = time.monotonic()
        self._idle_at_start = idle_seconds()
        self._cores = 0.0

    def __call__(self) -> float:
        """Return the cores that were idle in the last window, of at least IDLE_WINDOW_SECONDS."""
        now = time.monotonic()
        if (passed := now - self._window_start) >= IDLE_WINDOW_SECONDS:
            idle = self._idle_seconds()
            self._cores = (idle - self._idle_at_start) / passed
            self._window_start, self._idle_at_start = now, idle
        return self._cores


def rest_after(worked: float, factor: float = DEFAULT_REST_FACTOR, idle_cores: float = 0.0) -> float:
    """Return the seconds that a scheduler rests after a loop; a run that may start ends the rest early.

    Frequent events are then handled together, and tasks get most of the CPU. Half an idle core halves the rest; a whole
    idle core removes it, on two cores as on sixty-four.

    Args:
        worked: Seconds that the loop took.
        factor: Rest after a long loop, as a multiple of its duration.
        idle_cores: Number of idle cores.
    """
    multiple = factor if worked > LONG_LOOP_SECONDS else min(1.0, factor)
    return worked * multiple * min(1.0, max(0.0, 1.0 - idle_cores))


class Sleep:
    """A scheduler's sleep, which ends when an event arrives, and its rest between two loops.

    Args:
        listen_for_events: Waits for events; raises when the connection is lost, and is then called again.
        seconds_until_due: Returns the seconds until a run is due without an event; None if unknown.
        rest: Returns the seconds of rest after a loop, from the loop's duration.
    """

    def __init__(
        self,
        listen_for_events: Callable[[Callable[[str], None]], None] = listen_for_events,
        seconds_until_due: Callable[[], float | None] = seconds_until_due,
        rest: Callable[[float], float] = rest_after,
    ) -> None:
        self._listen_for_events = listen_for_events
        self._seconds_until_due = seconds_until_due
        self._rest_after = rest
        self._event = threading.Event()
        self._run_event = threading.Event()
        self._listener: threading.Thread | None = None
        self._loop_started = time.monotonic()

    def __call__(self, seconds: float) -> None:
        """Sleep for the given seconds, or until an event arrives after the rest."""
        if self._listener is None:  # not earlier: a process that is forked at the start must not inherit it
            self._listener = threading.Thread(target=self._listen, name="scheduler-wake", daemon=True)
            self._listener.start()
        remaining = seconds - self._rest(seconds)
        if remaining > 0 and not self._event.is_set() and (until_due := self._seconds_until_due()) is not None:
            remaining = min(remaining, until_due + DUE_MARGIN_SECONDS)
        self._event.wait(remaining)
        self._event.clear()
        self._start_loop()

    def rest_before_loop(self) -> None:
        """Rest after the previous loop, unless the scheduler slept after it."""
        self._rest(MAX_REST_SECONDS)
        self._start_loop()

    def skip_next_sleep(self) -> None:
        """Skip the sleep after this loop, because it could not queue any task."""
        self._event.set()

    def _start_loop(self) -> None:
        self._run_event.clear()
        self._loop_started = time.monotonic()

    def _rest(self, longest: float) -> float:
        worked = time.monotonic() - self._loop_started
        seconds = min(longest, self._rest_after(worked))
        time.sleep(min(worked, seconds))
        if seconds > worked:
            self._run_event.wait(seconds - worked)
        return seconds

    def _wake(self, payload: str) -> None:
        if payload == RUN:
            self._run_event.set()
        self._event.set()

    def _listen(self) -> None:
        while True:
            try:
                self._listen_for_events(self._wake)
            except Exception as error:
                log.warning(
                    "cannot listen for events, so the scheduler only wakes on its timer; retrying: %s",
                    str(error).strip(),
                )
            time.sleep(RETRY_SECONDS)


def install_sleep() -> None:
    """Wake the scheduler of this process on events, and let it rest between two loops."""
    os.environ.setdefault(IDLE_SLEEP, IDLE_SLEEP_SECONDS)  # the scheduler's job reads it when it is created
    from airflow.jobs import scheduler_job_runner

    module: Any = scheduler_job_runner
    factor, idle_cores = float(os.environ.get(REST_FACTOR) or DEFAULT_REST_FACTOR), IdleCores()
    sleep = Sleep(rest=lambda worked: rest_after(worked, factor, idle_cores()))
    module.time = SimpleNamespace(**{**vars(time), "sleep": sleep})
    wrapped = {"timer": wrap_timer(module.stats.timer, sleep), "incr": wrap_incr(module.stats.incr, sleep)}
    module.stats = SimpleNamespace(**{**vars(module.stats), **wrapped})


def wrap_incr(incr: Callable[..., Any], sleep: Sleep) -> Callable[..., Any]:
    """Wrap upstream's counter: a loop that found the pools locked skips its sleep.

    Args:
        incr: Upstream's counter function.
        sleep: The scheduler's sleep.
    """

    @functools.wraps(incr)
    def incr_and_wake(stat: str, *arguments: Any, **options: Any) -> Any:
        if stat == LOCKED_COUNTER:
            sleep.skip_next_sleep()
        return incr(stat, *arguments, **options)

    return incr_and_wake


def wrap_timer(timer: Callable[..., Any], sleep: Sleep) -> Callable[..., Any]:
    """Wrap upstream's timer: rest before the loop, outside of its measured time.

    Args:
        timer: Upstream's timer function.
        sleep: The scheduler's sleep.
    """

    @functools.wraps(timer)
    def rest_and_time(stat: str | None = None, *arguments: Any, **options: Any) -> Any:
        if stat == LOOP_TIMER:
            sleep.rest_before_loop()
        return timer(stat, *arguments, **options)

    return rest_and_time


def apply() -> None:
    """Notify schedulers, or, in a scheduler, listen."""
    if os.environ.get("AIRFLOW_HA_COMPONENT") in NOTIFYING:
        notify_on_commit()
    else:
        install_sleep()
