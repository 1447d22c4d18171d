"""A scheduler with nothing to do begins again when there is something, and a busy one does not take all the CPU.

Problem: an idle scheduler sleeps for `scheduler_idle_sleep_time` (1 s) whatever happens, so each step of a run waits
for half a second on average; a shorter sleep costs CPU all day. A busy one begins its next loop at once, for a single
task too. One that finds the pools locked by the other has queued nothing, and sleeps as if there were nothing to do.
Patch: whoever commits what a scheduler acts on notifies it (NOTIFY), and it wakes when the next scheduled run is due;
the sleep can be longer (2 s) and finds the rest, such as a `retry_delay` that ends. One that found the
pools locked does not sleep. While no core is idle a scheduler rests between two loops (`rest_after`).
Cost: Postgres commits those that notify one after the other, under a lock that is kept until the commit is on disk, the
synchronous replica's too: about 1,700 completions a second with a replica on the same disk, 7,300 without NOTIFY (2
busy cores; `./ops/stack bench commits`). A replica elsewhere adds the network's round trip to each.
Applies to: Airflow 3.3.2, `airflow.jobs.scheduler_job_runner`; the metadata engine of those that notify.
Upstream issue: none found.
Remove when: `test_upstream_still_sleeps_through_it` fails.
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

ANNOUNCING: Final = frozenset({"api-server", "execution-api", "triggerer"})
"""Components in which something begins or ends; a scheduler sees to its own."""
CHANNEL: Final = "airflow_ha_scheduler"
ENDED: Final = frozenset({"success", "failed", "skipped", "upstream_failed", "removed", "up_for_retry", "scheduled"})
"""The states of a task after which others may begin, or it itself."""
BEGUN: Final = frozenset({"queued"})
"""The state of a run that is to begin."""
RUN: Final = "run"
"""What is said when a run may begin."""
TASK: Final = "task"
"""What is said when a task may begin, or a run has ended."""
RELEASING: Final[Mapping[str, tuple[str, Callable[[Mapping[str, object]], bool]]]] = {
    "INSERT INTO dag_run ": (RUN, lambda _: True),
    "UPDATE dag_run SET ": (RUN, lambda row: row.get("state") in BEGUN),
    "UPDATE dag SET ": (RUN, lambda row: row.get("is_paused") is False),
    "UPDATE slot_pool SET ": (TASK, lambda _: True),
    "UPDATE task_instance SET ": (TASK, lambda row: row.get("state") in ENDED),
}
"""By the statement's beginning, what it lets begin, and with which rows."""
QUIET_SECONDS: Final = 10.0
"""A channel that is silent for as long is asked whether it is still there."""
RETRY_SECONDS: Final = 1.0
PAST_DUE: Final = 0.01
"""Seconds after a run is due: the database decides whether it is, by its own clock."""
ROUND: Final = "scheduler.scheduler_loop_duration"
"""The metric in which upstream's scheduler says how long a round took."""
LOCKED: Final = "scheduler.critical_section_busy"
"""The metric in which it says that it found the pools locked."""
LONG_ROUND: Final = 0.1
"""Seconds; a round for a run of a few tasks takes half of it."""
LONGEST_REST: Final = 1.0
"""Seconds between two rounds of a busy scheduler, as upstream's between two of an idle one."""
REST_FACTOR: Final = "AIRFLOW_HA_SCHEDULER_REST_FACTOR"
"""The environment variable with the factor of a rest after a long round; 0 is no rest at all."""
DEFAULT_REST_FACTOR: Final = 3.0
IDLE_SLEEP: Final = "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME"
IDLE_SLEEP_SECONDS: Final = "2"
"""Unless it is set: twice upstream's, since the sleep only finds what nobody notifies of."""
IDLE_WINDOW_SECONDS: Final = 1.0
"""Idle cores are counted over a second or more, since the kernel counts their time in hundredths."""
PROC_STAT: Final = Path("/proc/stat")

_SAID = "airflow_ha_work"


def work(statement: str, parameters: object) -> str | None:
    """What a statement gives schedulers to do.

    Args:
        statement: SQL, as Airflow's models and APIs write it.
        parameters: One row's by name, or several rows'.

    Returns:
        RUN or TASK, or None when it is nothing.
    """
    if not statement.startswith(("UPDATE ", "INSERT ")):  # most statements of an API server end here
        return None
    found = next((of for beginning, of in RELEASING.items() if statement.startswith(beginning)), None)
    if found is None:
        return None
    what, releases = found
    rows = [parameters] if isinstance(parameters, Mapping) else parameters
    given = isinstance(rows, Sequence) and any(isinstance(row, Mapping) and releases(row) for row in rows)
    return what if given else None


def _look(connection: Connection, _cursor: object, statement: str, parameters: object, *_more: object) -> None:
    if (what := work(statement, parameters)) and connection.info.get(_SAID) != RUN:
        connection.info[_SAID] = what


def _commit(connection: Connection) -> None:
    if (what := connection.info.pop(_SAID, None)) and connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"NOTIFY {CHANNEL}, '{what}'")


def _roll_back(connection: Connection) -> None:
    if not connection.invalidated:  # it has no `info` then: that raises PendingRollbackError
        connection.info.pop(_SAID, None)


def announce() -> None:
    """Notify schedulers of what this process commits to the metadata database from now on."""
    on_metadata_engine(_attach)


def _attach(engine: Engine) -> None:
    event.listen(engine, "before_cursor_execute", _look)
    event.listen(engine, "commit", _commit)
    event.listen(engine, "rollback", _roll_back)


def hear(wake: Callable[[str], None]) -> None:
    """Listens on the channel, for as long as the connection lasts.

    Args:
        wake: What is called, with RUN or TASK, when there is work, or may have been while nobody listened.

    Raises:
        Exception: Whatever the driver raises when a connection is lost.
    """
    from airflow import settings

    fairy = settings.get_engine().raw_connection()
    fairy.detach()  # it is not one of the pool's: it is never given back
    connection: Any = fairy.dbapi_connection
    with contextlib.closing(connection):
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(f"LISTEN {CHANNEL}")
        wake(RUN)
        while True:
            while not connection.notifies:
                if not select.select([connection], [], [], QUIET_SECONDS)[0]:
                    cursor.execute("SELECT 1")
                connection.poll()
            while connection.notifies:
                wake(connection.notifies.pop(0).payload)


def due() -> float | None:
    """Seconds until the next scheduled run is due.

    None when there is none, or the database does not say. One that is due already waits for something else.
    """
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session

    at = DagModel.next_dagrun_create_after
    now = sqlalchemy.type_coerce(sqlalchemy.func.now(), at.type)
    coming = sqlalchemy.select(sqlalchemy.func.min(at), now).where(
        at > now, DagModel.is_paused.is_(False), DagModel.is_stale.is_(False)
    )
    try:
        with create_session() as session:
            first, asked = session.execute(coming).one()
    except SQLAlchemyError as error:
        log.warning("the scheduler does not know when the next run is due: %s", str(error).strip())
        return None
    return (first - asked).total_seconds() if first else None


def idle_seconds() -> float:
    """Return for how long the cores that this process may use have been idle since the machine started, together.

    Without the time that a hypervisor gave to others. Cores of a container that `cpuset` keeps it from do not count.
    """
    cores = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    fields = (line.split() for line in PROC_STAT.read_text(encoding="ascii").splitlines() if line.startswith("cpu"))
    ticks = sum(int(idle) + int(iowait) for name, _, _, _, idle, iowait, *_ in fields if name in cores)
    return ticks / os.sysconf("SC_CLK_TCK")


class IdleCores:
    """How many cores were idle lately, such as 0.5: 0 until a window has passed.

    Args:
        idle_seconds: returns for how long all cores together have been idle.
    """

    def __init__(self, idle_seconds: Callable[[], float] = idle_seconds) -> None:
        self._idle_seconds = idle_seconds
        self._window_start = time.monotonic()
        self._idle_at_start = idle_seconds()
        self._cores = 0.0

    def __call__(self) -> float:
        """Return the cores that were idle in the last window, which may be longer than IDLE_WINDOW_SECONDS."""
        now = time.monotonic()
        if (passed := now - self._window_start) >= IDLE_WINDOW_SECONDS:
            idle = self._idle_seconds()
            self._cores = (idle - self._idle_at_start) / passed
            self._window_start, self._idle_at_start = now, idle
        return self._cores


def rest_after(worked: float, factor: float = DEFAULT_REST_FACTOR, idle_cores: float = 0.0) -> float:
    """Return for how many seconds a scheduler rests after a round, unless a run is to begin: users wait for that.

    What comes thick and fast is then dealt with together, and most of the time is the tasks'. Half an idle core halves
    the rest, and with a whole one there is none: nobody needs the time, on two cores as on sixty-four.

    Args:
        worked: Seconds that the round took.
        factor: How many times as long the rest after a long round is.
        idle_cores: How many cores nobody needs.
    """
    times = factor if worked > LONG_ROUND else min(1.0, factor)
    return worked * times * min(1.0, max(0.0, 1.0 - idle_cores))


class Sleep:
    """A scheduler's sleep, which ends when there is work, and its rest between two rounds.

    Args:
        hear: Tells of work; raises when it can do so no longer, and is called again.
        due: Seconds until there is work that nobody tells of; None when that is not known.
        rest: Seconds of rest after a round, by the seconds that the round took.
    """

    def __init__(
        self,
        hear: Callable[[Callable[[str], None]], None] = hear,
        due: Callable[[], float | None] = due,
        rest: Callable[[float], float] = rest_after,
    ) -> None:
        self._hear = hear
        self._due = due
        self._rest_after = rest
        self._work = threading.Event()
        self._run = threading.Event()
        self._listener: threading.Thread | None = None
        self._begun = time.monotonic()

    def __call__(self, seconds: float) -> None:
        """Returns after so many seconds, or as soon as there is work and it has rested."""
        if self._listener is None:  # here, so that no process that is forked at the start inherits half of it
            self._listener = threading.Thread(target=self._listen, name="scheduler-wake", daemon=True)
            self._listener.start()
        left = seconds - self._rest(seconds)
        if left > 0 and not self._work.is_set() and (coming := self._due()) is not None:
            left = min(left, coming + PAST_DUE)
        self._work.wait(left)
        self._work.clear()
        self._begin()

    def between_rounds(self) -> None:
        """Rests after the round before, unless it has slept after it."""
        self._rest(LONGEST_REST)
        self._begin()

    def not_now(self) -> None:
        """There is work, for which this round came too early: no sleep after it."""
        self._work.set()

    def _begin(self) -> None:
        self._run.clear()
        self._begun = time.monotonic()

    def _rest(self, most: float) -> float:
        worked = time.monotonic() - self._begun
        seconds = min(most, self._rest_after(worked))
        time.sleep(min(worked, seconds))
        if seconds > worked:
            self._run.wait(seconds - worked)
        return seconds

    def _wake(self, what: str) -> None:
        if what == RUN:
            self._run.set()
        self._work.set()

    def _listen(self) -> None:
        while True:
            try:
                self._hear(self._wake)
            except Exception as error:
                log.warning("the scheduler sleeps without being woken for a while: %s", str(error).strip())
            time.sleep(RETRY_SECONDS)


def listen() -> None:
    """From now on a scheduler in this process is woken by what the others say, and rests between two rounds."""
    os.environ.setdefault(IDLE_SLEEP, IDLE_SLEEP_SECONDS)  # read when the scheduler's job is created
    from airflow.jobs import scheduler_job_runner

    module: Any = scheduler_job_runner
    factor, idle_cores = float(os.environ.get(REST_FACTOR) or DEFAULT_REST_FACTOR), IdleCores()
    sleep = Sleep(rest=lambda worked: rest_after(worked, factor, idle_cores()))
    module.time = SimpleNamespace(**{**vars(time), "sleep": sleep})
    heard = {"timer": rested(module.stats.timer, sleep), "incr": counted(module.stats.incr, sleep)}
    module.stats = SimpleNamespace(**{**vars(module.stats), **heard})


def counted(incr: Callable[..., Any], sleep: Sleep) -> Callable[..., Any]:
    """What counts, and tells a scheduler that the pools were locked.

    Args:
        incr: Upstream's.
        sleep: The scheduler's.
    """

    @functools.wraps(incr)
    def increased(stat: str, *arguments: Any, **more: Any) -> Any:
        if stat == LOCKED:
            sleep.not_now()
        return incr(stat, *arguments, **more)

    return increased


def rested(timer: Callable[..., Any], sleep: Sleep) -> Callable[..., Any]:
    """What times a round, after the rest: no part of it.

    Args:
        timer: Upstream's.
        sleep: The scheduler's.
    """

    @functools.wraps(timer)
    def timed(stat: str | None = None, *arguments: Any, **more: Any) -> Any:
        if stat == ROUND:
            sleep.between_rounds()
        return timer(stat, *arguments, **more)

    return timed


def apply() -> None:
    """Announce what schedulers act on; in a scheduler, listen."""
    if os.environ.get("AIRFLOW_HA_COMPONENT") in ANNOUNCING:
        announce()
    else:
        listen()
