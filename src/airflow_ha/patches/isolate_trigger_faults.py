"""A trigger's fault fails the task that waits for it, and no other.

Problem: one trigger ends the triggerer, and comes back after its restart, so that no deferred task of anybody resumes:
  by an event or a traceback that the database, the serializer or the supervisor's schema refuses; an error when it is
  made from its arguments; sys.exit(); a signal, os._exit() or the memory limit; or by blocking the event loop.
Patch: what cannot be delivered or written fails its own trigger, with a reason that can be written. The runner marks,
  in memory that it shares with its supervisor, whose step the event loop runs: when the runner dies or does not get on
  in a step, that trigger is failed before the restart. An asset's trigger, which no task waits for, is held for an
  hour.
Applies to: Airflow 3.3.2, `airflow.jobs.triggerer_job_runner`.
Upstream issue: https://github.com/apache/airflow/issues/70385
Remove when: the tests in `test_isolate_trigger_faults.py` that name upstream fail.
"""

from __future__ import annotations

import asyncio
import logging
import math
import mmap
import signal
import time
from collections import deque
from contextvars import ContextVar
from datetime import timedelta
from traceback import format_exception
from typing import TYPE_CHECKING, Any, Final

import msgspec
import psutil
from airflow._shared.observability.metrics import stats
from airflow._shared.timezones import timezone
from airflow.jobs.triggerer_job_runner import TriggerRunner, TriggerRunnerSupervisor, messages
from airflow.models.trigger import Trigger
from airflow.sdk.execution_time.comms import _RequestFrame
from airflow.triggers.base import TriggerEvent
from airflow.utils.session import create_session
from sqlalchemy import update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError

from airflow_ha.task_process.process_exit import exit_reason, oom_kills, prefer_as_oom_target

if TYPE_CHECKING:
    from collections.abc import Iterable

log = logging.getLogger(__name__)

EVENT_BYTES: Final = 4 * 2**20
"""Of the largest event: it is copied about ten times on its way into the database, and schedulers load it."""
MESSAGE_BYTES: Final = 2 * EVENT_BYTES
"""Events that go to the supervisor together."""
REASON_CHARACTERS: Final = 32_000
BUSY_SECONDS: Final = 4.0
"""Of CPU time: a step that has had less in a longer time, and does not sleep, is starved."""
LONGEST_LOOK: Final = 5.0
"""Seconds between two looks at the runner that count at most."""
READ_SECONDS: Final = 2.0
"""The longest that the supervisor reads what the runner writes before it does its other work."""
HOLD: Final = timedelta(hours=1)
HELD: Final = "airflow-ha-held-until-"
"""With a time after it, the queue of a held trigger, which no triggerer serves."""
HELD_FORMAT: Final = "%Y-%m-%dT%H:%M:%S"
RELEASE_SECONDS: Final = 60.0
REFUSALS: Final = ("22", "23", "54")
"""Classes of SQLSTATE for which the data is at fault: data exception, integrity violation, program limit exceeded."""

# ---- what can be written


def storable(lines: Iterable[str]) -> list[str]:
    """Return the lines with what Postgres and UTF-8 refuse escaped, and their middle left out where they are long."""
    text = "".join(lines)
    if len(text) > REASON_CHARACTERS:
        half = REASON_CHARACTERS // 2
        text = f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
    return [text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")]


def is_refusal(error: Exception) -> bool:
    """Return whether an error is about the data, so that it would come again; False for an outage of the database."""
    if isinstance(error, DBAPIError):
        code = getattr(error.orig, "pgcode", None) or getattr(error.orig, "sqlstate", None) or ""
        return not error.connection_invalidated and code.startswith(REFUSALS)
    return isinstance(error, StatementError) or not isinstance(error, (SQLAlchemyError, OSError, MemoryError))


# ---- whose step the event loop runs, in memory that the runner inherits from its supervisor

STEP, NUMBER, LAST = range(3)
"""Cells: the trigger whose step runs, 0 for none; how many steps there were; the trigger that ended the event loop."""
_cells = memoryview(mmap.mmap(-1, 3 * 8)).cast("q")
_trigger: ContextVar[int] = ContextVar("airflow_ha_trigger", default=0)
_handle: Any = asyncio.Handle
_run_handle: Any = _handle._run


def culprit() -> int:
    """Return the id of the trigger in whose step the runner is, or ended; 0 when it is in none."""
    return _cells[LAST] or _cells[STEP]


def run_handle(self: Any) -> None:
    """As asyncio's; what a trigger's own context runs is marked as its step."""
    trigger_id = self._context.get(_trigger, 0)
    if not trigger_id:
        _run_handle(self)
        return
    _cells[STEP] = trigger_id
    _cells[NUMBER] += 1
    try:
        _run_handle(self)
    except BaseException:  # what asyncio does not catch ends the event loop
        _cells[LAST] = trigger_id
        raise
    _cells[STEP] = 0


# ---- the runner's side

_run_in_process: Any = TriggerRunnerSupervisor.run_in_process.__func__
_create_triggers: Any = TriggerRunner.create_triggers
_run_trigger: Any = TriggerRunner.run_trigger
_process_trigger_events: Any = TriggerRunner.process_trigger_events


def run_in_process(cls: type[TriggerRunnerSupervisor]) -> None:
    """As upstream's, with steps marked; the kernel takes this process before the supervisor."""
    prefer_as_oom_target()
    _handle._run = run_handle
    _run_in_process(cls)


async def create_triggers(self: TriggerRunner) -> None:
    """As upstream's, one trigger at a time; any error fails that one."""
    waiting, self.to_create = self.to_create, deque()
    while waiting:
        workload = waiting.popleft()
        self.to_create.append(workload)
        token = _trigger.set(workload.id)
        _cells[STEP] = workload.id
        try:
            await _create_triggers(self)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # sys.exit() in its __init__ included
            self.failed_triggers.append((workload.id, error))
        finally:
            _trigger.reset(token)
            _cells[STEP] = 0


async def run_trigger(self: TriggerRunner, trigger_id: int, *args: Any, **kwargs: Any) -> None:
    """As upstream's; sys.exit() is an error like others, where asyncio ends the event loop."""
    try:
        await _run_trigger(self, trigger_id, *args, **kwargs)
    except (SystemExit, KeyboardInterrupt) as error:
        raise RuntimeError(f"the trigger called sys.exit(): {error!r}") from error


def encoded_size(entry: Any) -> int:
    """Return how many bytes an event takes on its way to the supervisor.

    Raises:
        Exception: It cannot be encoded, or not be read by the supervisor.
        ValueError: It is larger than EVENT_BYTES.
    """
    message = messages.TriggerStateChanges(events=[entry])
    frame = bytes(_RequestFrame(id=0, body=message.model_dump()).as_bytes())
    if len(frame) > EVENT_BYTES:
        raise ValueError(
            f"the event takes {len(frame) / 2**20:.1f} MiB, more than {EVENT_BYTES / 2**20:.0f} MiB: "
            "return where the data is, not the data"
        )
    request = msgspec.msgpack.decode(frame[4:], type=_RequestFrame)
    TriggerRunnerSupervisor.decoder.validate_python(request.body)
    return len(frame)


def process_trigger_events(self: TriggerRunner, finished_ids: list[int]) -> messages.TriggerStateChanges:
    """As upstream's, of the events that can be delivered, MESSAGE_BYTES at a time; the others fail their triggers."""
    batch, size = deque[Any](), 0
    while self.events and size < MESSAGE_BYTES:
        entry = self.events.popleft()
        try:
            size += encoded_size(entry)
        except Exception as error:
            self.failed_triggers.append((entry.trigger_id, error))
        else:
            batch.append(entry)
    later, self.events = self.events, batch
    # A trigger that is reported as finished before its event arrives would be started again.
    state: dict[str, Any] = self.__dict__
    waiting = {entry.trigger_id for entry in later}
    finished = [*state.get("finished_before", ()), *finished_ids]
    state["finished_before"] = [trigger_id for trigger_id in finished if trigger_id in waiting]
    failures = [
        (trigger_id, storable(format_exception(error)) if error else None) for trigger_id, error in self.failed_triggers
    ]
    self.failed_triggers = deque()
    message: messages.TriggerStateChanges = _process_trigger_events(
        self, finished_ids=[trigger_id for trigger_id in finished if trigger_id not in waiting]
    )
    message.failures = failures or None
    self.events = later
    return message


# ---- the supervisor's side

_on_trigger_event: Any = TriggerRunnerSupervisor.on_trigger_event
_on_trigger_failure: Any = TriggerRunnerSupervisor.on_trigger_failure
_create_workload: Any = TriggerRunnerSupervisor._create_workload
_load_triggers: Any = TriggerRunnerSupervisor.load_triggers
_process_log_messages: Any = TriggerRunnerSupervisor._process_log_messages_from_subprocess
_service_subprocess: Any = TriggerRunnerSupervisor._service_subprocess
_heartbeat: Any = TriggerRunnerSupervisor.heartbeat
_run: Any = TriggerRunnerSupervisor.run


def on_trigger_event(self: TriggerRunnerSupervisor, trigger_id: int, event: TriggerEvent) -> None:
    """As upstream's; an event that the database refuses fails those that wait for it."""
    try:
        _on_trigger_event(self, trigger_id=trigger_id, event=event)
    except Exception as error:
        if not is_refusal(error):
            raise
        cause = error.orig if isinstance(error, StatementError) else error
        fail(self, trigger_id, [f"The trigger's event cannot be stored: {type(cause).__name__}: {cause}\n"])


def on_trigger_failure(self: TriggerRunnerSupervisor, trigger_id: int, exc: list[str] | None) -> None:
    """As upstream's, with a reason that can be written."""
    _on_trigger_failure(self, trigger_id=trigger_id, exc=storable(exc) if exc else exc)


def fail(self: TriggerRunnerSupervisor, trigger_id: int, reason: list[str]) -> None:
    """Fail the tasks and the callback that wait for a trigger; an asset's trigger drops the event."""
    lines = storable(reason)
    log.error("Trigger %s failed: %s", trigger_id, lines[0])
    Trigger.submit_failure(trigger_id=trigger_id, exc=lines)
    with create_session() as session:
        trigger = session.get(Trigger, trigger_id)
        if trigger is not None and trigger.callback:
            trigger.callback.handle_event(TriggerEvent({"state": "failed", "body": lines[0]}), session)
    stats.incr("triggers.failed")


def fail_culprit(self: TriggerRunnerSupervisor, trigger_id: int, reason: str) -> None:
    """Fail the trigger that ended or blocked the runner; no triggerer runs it again, an asset's for HOLD."""
    fail(self, trigger_id, [f"The triggerer's process {reason}, in a step of this trigger.\n"])
    until = (timezone.utcnow() + HOLD).strftime(HELD_FORMAT)
    with create_session() as session:
        trigger = session.get(Trigger, trigger_id)
        if trigger is not None and trigger.assets:
            log.error("Trigger %s of an asset is held until %s", trigger_id, until)
            trigger.queue = HELD + until


_released = -math.inf
"""When held triggers were last looked for."""


def load_triggers(self: TriggerRunnerSupervisor) -> None:
    """As upstream's, and once a minute with the triggers whose hold is over."""
    global _released
    if time.monotonic() - _released > RELEASE_SECONDS:
        _released = time.monotonic()
        over = HELD + timezone.utcnow().strftime(HELD_FORMAT)
        with create_session() as session:
            session.execute(update(Trigger).where(Trigger.queue.between(HELD, over)).values(queue=None))
    _load_triggers(self)


def create_workload(self: TriggerRunnerSupervisor, trigger: Trigger, **kwargs: Any) -> Any:
    """As upstream's; one that cannot be made fails its trigger."""
    try:
        return _create_workload(self, trigger=trigger, **kwargs)
    except Exception as error:
        if not is_refusal(error):
            raise
        self.failed_triggers.append((trigger.id, storable(format_exception(error))))
        return None


def process_log_messages(self: TriggerRunnerSupervisor) -> Any:
    """As upstream's; a line that cannot be written is left out."""
    upstreams: Any = None
    while True:
        if upstreams is None:
            upstreams = _process_log_messages(self)
            next(upstreams)
        line = yield
        try:
            upstreams.send(line)
        except Exception:
            log.exception("Cannot write a trigger's log line: %r", bytes(line[:500]))
            upstreams = None


def service_subprocess(self: TriggerRunnerSupervisor, max_wait_time: float, *args: Any, **kwargs: Any) -> int | None:
    """As upstream's, until the runner has written nothing more.

    Upstream reads 4 KiB between two rounds of database queries: a long log line would block the runner meanwhile.
    """
    until = time.monotonic() + READ_SECONDS
    code: int | None = _service_subprocess(self, max_wait_time, *args, **kwargs)
    while code is None and time.monotonic() < until and self.selector.select(timeout=0):
        code = _service_subprocess(self, 0.0, *args, **kwargs)
    return code


class StepWatch:
    """How long the runner has been blocked in one and the same step.

    A step that waits for a processor is not blocked, nor one that stood still because this process did too.
    """

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.oom_kills_before = oom_kills()
        self._step = -1
        self._at = self._cpu = self._passed = self._slept = self._worked = 0.0

    def seconds(self) -> float:
        """Return the seconds so far, 0 while it may be starved; asked about once a second."""
        try:
            times = self._process.cpu_times()
            sleeps = self._process.status() == psutil.STATUS_SLEEPING
        except psutil.Error:
            return 0.0
        now, cpu = time.monotonic(), times.user + times.system
        if culprit() and _cells[NUMBER] == self._step:
            passed = min(now - self._at, LONGEST_LOOK)
            self._passed += passed
            self._slept += passed if sleeps else 0.0
            self._worked += cpu - self._cpu
        else:
            self._step = _cells[NUMBER]
            self._passed = self._slept = self._worked = 0.0
        self._at, self._cpu = now, cpu
        return self._passed if self._slept > self._passed / 2 or self._worked > BUSY_SECONDS else 0.0


_watch: StepWatch | None = None
"""Of the one runner that this process supervises."""
_ended = False
"""Whether the runner was ended here, and its culprit failed."""


def heartbeat(self: TriggerRunnerSupervisor) -> None:
    """As upstream's; a trigger that blocks all others is failed, and the runner ended."""
    global _ended
    limit = self.runner_health_check_threshold
    if _watch and 0 < limit < (seconds := _watch.seconds()) and not _ended:
        fail_culprit(self, culprit(), f"was blocked for {seconds:.0f} s")
        _ended = True
        self.kill(signal.SIGKILL)
    _heartbeat(self)


def run(self: TriggerRunnerSupervisor) -> None:
    """As upstream's, which returns when the runner has died; who ended it is failed."""
    global _watch
    _watch = StepWatch(self.pid)
    _run(self)
    if not (self.is_alive() or self.stop or _ended) and (trigger_id := culprit()):
        fail_culprit(self, trigger_id, exit_reason(self._exit_code, _watch.oom_kills_before))


def apply() -> None:
    """Fail the trigger at fault, and no other."""
    TriggerRunnerSupervisor.run_in_process = classmethod(run_in_process)
    TriggerRunnerSupervisor.on_trigger_event = on_trigger_event
    TriggerRunnerSupervisor.on_trigger_failure = on_trigger_failure
    TriggerRunnerSupervisor._create_workload = create_workload
    TriggerRunnerSupervisor.load_triggers = load_triggers
    TriggerRunnerSupervisor._process_log_messages_from_subprocess = process_log_messages
    TriggerRunnerSupervisor._service_subprocess = service_subprocess
    TriggerRunnerSupervisor.heartbeat = heartbeat
    TriggerRunnerSupervisor.run = run
    TriggerRunner.create_triggers = create_triggers
    TriggerRunner.run_trigger = run_trigger
    TriggerRunner.process_trigger_events = process_trigger_events
