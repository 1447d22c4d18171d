"""A scheduler with nothing to do begins again when there is something, and a busy one does not take all it can get.

The faults, in Airflow 3.3.2's `airflow.jobs.scheduler_job_runner`: a scheduler without work sleeps for
`scheduler_idle_sleep_time` (1 s), whatever happens meanwhile. A run's beginning and each end of a task wait for that:
on average half a second, or a third with two schedulers, at each step of a run. A shorter sleep is quicker, and costs
CPU all day. One with work, were it a single task's end, begins its next round at once, and a round asks the database
some thirty things whether it finds one task or fifty: two schedulers take turns to find little. And one that has made a
task ready but finds the pools locked by the other has queued nothing, and sleeps as if there were nothing to do.

The work-round: whoever commits what a scheduler acts on, a run or the end of a task, says so on a channel of Postgres
(NOTIFY, heard if and when the transaction is committed), and a scheduler that sleeps is woken by it. It also wakes when
the next scheduled run is due. So it can sleep longer: compose/airflow.yaml. What is not heard, while the primary is
replaced for instance, and what nobody says, as the end of a task's `retry_delay`, is found at the end of the sleep.
One that found the pools locked does not sleep.

Between two rounds a scheduler rests: as long as the one before took, and three times as long after one that was long,
because the machine is busy, unless a run is to begin meanwhile: people wait for that, and it is rare. What comes thick
and fast is dealt with together, and most of the time is the tasks'.

No upstream issue was found. It can go when the test in `test_scheduler_wake.py` that names upstream fails. Loaded with
the database's settings by those that say it (airflow_ha/database_config.py), and with Celery's by schedulers, which
hear it (airflow_ha/celery_config.py).
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
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from airflow_ha.upstream.engines import on_metadata_engine

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


def rest_after(worked: float) -> float:
    """How long a scheduler rests after a round, unless a run is to begin.

    Args:
        worked: Seconds that the round took.
    """
    return worked if worked <= LONG_ROUND else 3 * worked


class Sleep:
    """A scheduler's sleep, which ends when there is work, and its rest between two rounds.

    Args:
        hear: Tells of work; raises when it can do so no longer, and is called again.
        due: Seconds until there is work that nobody tells of; None when that is not known.
    """

    def __init__(
        self, hear: Callable[[Callable[[str], None]], None] = hear, due: Callable[[], float | None] = due
    ) -> None:
        self._hear = hear
        self._due = due
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
        seconds = min(most, rest_after(worked))
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
    from airflow.jobs import scheduler_job_runner

    module: Any = scheduler_job_runner
    sleep = Sleep()
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


if os.environ.get("AIRFLOW_HA_COMPONENT") in ANNOUNCING:
    announce()
