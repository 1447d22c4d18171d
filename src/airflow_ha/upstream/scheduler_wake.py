"""A scheduler with nothing to do begins again when there is something, and a busy one does not take all it can get.

The faults, in Airflow 3.3.2's `airflow.jobs.scheduler_job_runner`: a scheduler without work sleeps for
`scheduler_idle_sleep_time` (1 s), whatever happens meanwhile. A run's beginning and each end of a task wait for that:
on average half a second, or a third with two schedulers, at each step of a run. A shorter sleep is quicker, and costs
CPU all day. One with work, were it a single task's end, begins its next round at once, and a round asks the database
some thirty things whether it finds one task or fifty: two schedulers take turns to find little.

The work-round: whoever commits what a scheduler acts on, a run or the end of a task, says so on a channel of Postgres
(NOTIFY, heard if and when the transaction is committed), and a scheduler that sleeps is woken by it. It also wakes when
the next scheduled run is due. So it can sleep longer: compose/airflow.yaml. What is not heard, while the primary is
replaced for instance, and what nobody says, as the end of a task's `retry_delay`, is found at the end of the sleep.
Between two rounds a scheduler rests: as long as the one before took, and three times as long after one that was long,
because the machine is busy or the run has hundreds of tasks, all of which it loads. What comes thick and fast is dealt
with together, and most of the time is the tasks'.

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
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

log = logging.getLogger(__name__)

ANNOUNCING: Final = frozenset({"api-server", "execution-api", "triggerer"})
"""Components in which something begins or ends; a scheduler sees to its own."""
CHANNEL: Final = "airflow_ha_scheduler"
ENDED: Final = frozenset({"success", "failed", "skipped", "upstream_failed", "removed", "up_for_retry", "scheduled"})
"""The states of a task after which others may begin, or it itself."""
BEGUN: Final = frozenset({"queued"})
"""The state of a run that is to begin."""
RELEASING: Final = ("INSERT INTO dag_run ", "UPDATE slot_pool SET ")
"""What lets something begin, whatever is written."""
WRITTEN: Final[Mapping[str, Callable[[Mapping[str, object]], bool]]] = {
    "UPDATE task_instance SET ": lambda row: row.get("state") in ENDED,
    "UPDATE dag_run SET ": lambda row: row.get("state") in BEGUN,
    "UPDATE dag SET ": lambda row: row.get("is_paused") is False,
}
"""By the statement's beginning, which rows let something begin."""
QUIET_SECONDS: Final = 10.0
"""A channel that is silent for as long is asked whether it is still there."""
RETRY_SECONDS: Final = 1.0
PAST_DUE: Final = 0.01
"""Seconds after a run is due: the database decides whether it is, by its own clock."""
ROUND: Final = "scheduler.scheduler_loop_duration"
"""The metric in which upstream's scheduler says how long a round took."""
LONG_ROUND: Final = 0.1
"""Seconds; a round for a run of a few tasks takes half of it."""
LONGEST_REST: Final = 1.0
"""Seconds between two rounds of a busy scheduler, as upstream's between two of an idle one."""

_SAID = "airflow_ha_work"


def is_work(statement: str, parameters: object) -> bool:
    """Whether a statement gives schedulers something to do.

    Args:
        statement: SQL, as Airflow's models and APIs write it.
        parameters: One row's by name, or several rows'.
    """
    if statement.startswith(RELEASING):
        return True
    if not statement.startswith("UPDATE "):  # most statements of an API server end here
        return False
    releases = next((of for beginning, of in WRITTEN.items() if statement.startswith(beginning)), None)
    if releases is None:
        return False
    rows = [parameters] if isinstance(parameters, Mapping) else parameters
    return isinstance(rows, Sequence) and any(isinstance(row, Mapping) and releases(row) for row in rows)


def _look(connection: Connection, _cursor: object, statement: str, parameters: object, *_more: object) -> None:
    if is_work(statement, parameters):
        connection.info[_SAID] = True


def _commit(connection: Connection) -> None:
    if connection.info.pop(_SAID, False) and connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"NOTIFY {CHANNEL}")


def _roll_back(connection: Connection) -> None:
    connection.info.pop(_SAID, None)


def announce() -> None:
    """From now on this process says what it commits for schedulers."""
    event.listen(Engine, "before_cursor_execute", _look)
    event.listen(Engine, "commit", _commit)
    event.listen(Engine, "rollback", _roll_back)


def hear(wake: Callable[[], None]) -> None:
    """Listens on the channel, for as long as the connection lasts.

    Args:
        wake: What is called when there is work, or may have been while nobody listened.

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
        while True:
            wake()
            while not connection.notifies:
                if not select.select([connection], [], [], QUIET_SECONDS)[0]:
                    cursor.execute("SELECT 1")
                connection.poll()
            connection.notifies.clear()


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
    """How long a scheduler rests after a round.

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
        self, hear: Callable[[Callable[[], None]], None] = hear, due: Callable[[], float | None] = due
    ) -> None:
        self._hear = hear
        self._due = due
        self._work = threading.Event()
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
        self._begun = time.monotonic()

    def between_rounds(self) -> None:
        """Rests after the round before, unless it has slept after it."""
        self._rest(LONGEST_REST)
        self._begun = time.monotonic()

    def _rest(self, most: float) -> float:
        seconds = min(most, rest_after(time.monotonic() - self._begun))
        time.sleep(seconds)
        return seconds

    def _listen(self) -> None:
        while True:
            try:
                self._hear(self._work.set)
            except Exception as error:
                log.warning("the scheduler sleeps without being woken for a while: %s", str(error).strip())
            time.sleep(RETRY_SECONDS)


def listen() -> None:
    """From now on a scheduler in this process is woken by what the others say, and rests between two rounds."""
    from airflow.jobs import scheduler_job_runner

    module: Any = scheduler_job_runner
    sleep = Sleep()
    module.time = SimpleNamespace(**{**vars(time), "sleep": sleep})
    module.stats = SimpleNamespace(**{**vars(module.stats), "timer": rested(module.stats.timer, sleep)})


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
