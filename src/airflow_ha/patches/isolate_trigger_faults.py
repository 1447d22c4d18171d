"""A faulty trigger fails only the task that waits for it.

Problem: one trigger ends the triggerer, and again after each restart, so no deferred task resumes. It does so by: an
  event or traceback that the database, the serializer or the supervisor's schema refuses; an error in its constructor;
  sys.exit(); a signal, os._exit() or the memory limit; or blocking the event loop.
Patch: a trigger whose event cannot be delivered or stored fails with a storable reason. The runner marks, in memory
  shared with its supervisor, whose step the event loop runs. If the runner exits or hangs in a step, that trigger is
  failed before the restart. An asset's trigger, for which no task waits, is held for an hour.
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
from typing import Any, Final

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

from airflow_ha.sizes import MIB
from airflow_ha.storable_text import storable_text
from airflow_ha.task_process.container_memory import oom_kills
from airflow_ha.task_process.process_exit import exit_reason, prefer_as_oom_target

log = logging.getLogger(__name__)

EVENT_BYTES: Final = 4 * MIB
"""Largest event: it is copied about ten times on its way to the database, and schedulers load it."""
MESSAGE_BYTES: Final = 2 * EVENT_BYTES
"""Size of the events that are sent to the supervisor together."""
BUSY_SECONDS: Final = 4.0
"""CPU time: a longer step that had less of it, and does not sleep, is starved."""
MAX_CHECK_GAP: Final = 5.0
"""Most seconds that count between two checks of the runner."""
READ_SECONDS: Final = 2.0
"""Longest time that the supervisor reads the runner's output before it does its other work."""
HOLD: Final = timedelta(hours=1)
HELD: Final = "airflow-ha-held-until-"
"""Queue prefix, with a time appended: no triggerer serves the queue of a held trigger."""
HELD_FORMAT: Final = "%Y-%m-%dT%H:%M:%S"
RELEASE_SECONDS: Final = 60.0
REFUSALS: Final = ("22", "23", "54")
"""SQLSTATE classes of faulty data: data exception, integrity violation, program limit exceeded."""


def is_refusal(error: Exception) -> bool:
    """Return whether an error is caused by the data and would recur; False for a database outage."""
    if isinstance(error, DBAPIError):
        code = getattr(error.orig, "pgcode", None) or getattr(error.orig, "sqlstate", None) or ""
        return not error.connection_invalidated and code.startswith(REFUSALS)
    return isinstance(error, StatementError) or not isinstance(error, (SQLAlchemyError, OSError, MemoryError))


# ---- the trigger whose step the event loop runs, in memory shared by the runner and its supervisor

STEP, NUMBER, LAST = range(3)
"""Cells: the trigger whose step runs (0 for none), the number of steps, the trigger that ended the event loop."""
_cells = memoryview(mmap.mmap(-1, 3 * 8)).cast("q")
_trigger: ContextVar[int] = ContextVar("airflow_ha_trigger", default=0)
_handle: Any = asyncio.Handle
_run_handle: Any = _handle._run


def culprit() -> int:
    """Return the id of the trigger in whose step the runner is, or ended; 0 if it is in none."""
    return _cells[LAST] or _cells[STEP]


def run_handle(self: Any) -> None:
    """Run an asyncio handle; mark the step if it belongs to a trigger."""
    trigger_id = self._context.get(_trigger, 0)
    if not trigger_id:
        _run_handle(self)
        return
    _cells[STEP] = trigger_id
    _cells[NUMBER] += 1
    try:
        _run_handle(self)
    except BaseException:  # exceptions that asyncio does not catch end the event loop
        _cells[LAST] = trigger_id
        raise
    _cells[STEP] = 0


# ---- the runner's side

_run_in_process: Any = TriggerRunnerSupervisor.run_in_process.__func__
_create_triggers: Any = TriggerRunner.create_triggers
_run_trigger: Any = TriggerRunner.run_trigger
_process_trigger_events: Any = TriggerRunner.process_trigger_events


def run_in_process(cls: type[TriggerRunnerSupervisor]) -> None:
    """Call the upstream method with marked steps, in a process that the OOM killer prefers to the supervisor."""
    prefer_as_oom_target()
    _handle._run = run_handle
    _run_in_process(cls)


async def create_triggers(self: TriggerRunner) -> None:
    """Call the upstream method for one trigger at a time; an error fails only that trigger."""
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
        except BaseException as error:  # also sys.exit() in its __init__
            self.failed_triggers.append((workload.id, error))
        finally:
            _trigger.reset(token)
            _cells[STEP] = 0


async def run_trigger(self: TriggerRunner, trigger_id: int, *args: Any, **kwargs: Any) -> None:
    """Call the upstream method; turn sys.exit(), which would end the event loop, into an error."""
    try:
        await _run_trigger(self, trigger_id, *args, **kwargs)
    except (SystemExit, KeyboardInterrupt) as error:
        raise RuntimeError(f"the trigger called sys.exit(): {error!r}") from error


def encoded_size(entry: Any) -> int:
    """Return the size of an event, in bytes, in a message to the supervisor.

    Raises:
        Exception: The event cannot be encoded, or the supervisor cannot read it.
        ValueError: The event exceeds EVENT_BYTES.
    """
    message = messages.TriggerStateChanges(events=[entry])
    frame = bytes(_RequestFrame(id=0, body=message.model_dump()).as_bytes())
    if len(frame) > EVENT_BYTES:
        raise ValueError(
            f"the event takes {len(frame) / MIB:.1f} MiB, more than {EVENT_BYTES / MIB:.0f} MiB: "
            "return the location of the data, not the data"
        )
    request = msgspec.msgpack.decode(frame[4:], type=_RequestFrame)
    TriggerRunnerSupervisor.decoder.validate_python(request.body)
    return len(frame)


def process_trigger_events(self: TriggerRunner, finished_ids: list[int]) -> messages.TriggerStateChanges:
    """Call the upstream method for deliverable events, MESSAGE_BYTES at a time; fail the other triggers."""
    batch, size = deque[Any](), 0
    while self.events and size < MESSAGE_BYTES:
        entry = self.events.popleft()
        try:
            size += encoded_size(entry)
        except Exception as error:
            self.failed_triggers.append((entry.trigger_id, error))
        else:
            batch.append(entry)
    remaining, self.events = self.events, batch
    # A trigger that is reported as finished before its event would be started again.
    state: dict[str, Any] = self.__dict__
    waiting = {entry.trigger_id for entry in remaining}
    finished = [*state.get("finished_before", ()), *finished_ids]
    state["finished_before"] = [trigger_id for trigger_id in finished if trigger_id in waiting]
    failures = [
        (trigger_id, [storable_text("".join(format_exception(error)))] if error else None)
        for trigger_id, error in self.failed_triggers
    ]
    self.failed_triggers = deque()
    message: messages.TriggerStateChanges = _process_trigger_events(
        self, finished_ids=[trigger_id for trigger_id in finished if trigger_id not in waiting]
    )
    message.failures = failures or None
    self.events = remaining
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
    """Call the upstream method; fail the waiting tasks if the database refuses the event."""
    try:
        _on_trigger_event(self, trigger_id=trigger_id, event=event)
    except Exception as error:
        if not is_refusal(error):
            raise
        cause = error.orig if isinstance(error, StatementError) else error
        fail(self, trigger_id, [f"The trigger's event cannot be stored: {type(cause).__name__}: {cause}\n"])


def on_trigger_failure(self: TriggerRunnerSupervisor, trigger_id: int, exc: list[str] | None) -> None:
    """Call the upstream method with a storable reason."""
    _on_trigger_failure(self, trigger_id=trigger_id, exc=[storable_text("".join(exc))] if exc else exc)


def fail(self: TriggerRunnerSupervisor, trigger_id: int, reason: list[str]) -> None:
    """Fail the tasks and the callback that wait for a trigger; for an asset's trigger, drop the event."""
    lines = [storable_text("".join(reason))]
    log.error("Trigger %s failed: %s", trigger_id, lines[0])
    Trigger.submit_failure(trigger_id=trigger_id, exc=lines)
    with create_session() as session:
        trigger = session.get(Trigger, trigger_id)
        if trigger is not None and trigger.callback:
            trigger.callback.handle_event(TriggerEvent({"state": "failed", "body": lines[0]}), session)
    stats.incr("triggers.failed")


def fail_culprit(self: TriggerRunnerSupervisor, trigger_id: int, reason: str) -> None:
    """Fail the trigger that ended or blocked the runner, and hold an asset's trigger for HOLD."""
    fail(self, trigger_id, [f"The triggerer's process {reason}, in a step of this trigger.\n"])
    until = (timezone.utcnow() + HOLD).strftime(HELD_FORMAT)
    with create_session() as session:
        trigger = session.get(Trigger, trigger_id)
        if trigger is not None and trigger.assets:
            log.error("Trigger %s of an asset is held until %s", trigger_id, until)
            trigger.queue = HELD + until


_released = -math.inf
"""Monotonic time of the last release of held triggers."""


def load_triggers(self: TriggerRunnerSupervisor) -> None:
    """Call the upstream method; once a minute, first release the triggers whose hold is over."""
    global _released
    if time.monotonic() - _released > RELEASE_SECONDS:
        _released = time.monotonic()
        expired_queue = HELD + timezone.utcnow().strftime(HELD_FORMAT)
        with create_session() as session:
            session.execute(update(Trigger).where(Trigger.queue.between(HELD, expired_queue)).values(queue=None))
    _load_triggers(self)


def create_workload(self: TriggerRunnerSupervisor, trigger: Trigger, **kwargs: Any) -> Any:
    """Call the upstream method; fail the trigger if its workload cannot be created."""
    try:
        return _create_workload(self, trigger=trigger, **kwargs)
    except Exception as error:
        if not is_refusal(error):
            raise
        self.failed_triggers.append((trigger.id, [storable_text("".join(format_exception(error)))]))
        return None


def process_log_messages(self: TriggerRunnerSupervisor) -> Any:
    """Call the upstream generator; skip a log line that cannot be written."""
    generator: Any = None
    while True:
        if generator is None:
            generator = _process_log_messages(self)
            next(generator)
        line = yield
        try:
            generator.send(line)
        except Exception:
            log.exception("cannot write a trigger's log line: %r", bytes(line[:500]))
            generator = None


def service_subprocess(self: TriggerRunnerSupervisor, max_wait_time: float, *args: Any, **kwargs: Any) -> int | None:
    """Call the upstream method until the runner has no more output.

    Upstream reads 4 KiB between two database queries, so a long log line would block the runner.
    """
    until = time.monotonic() + READ_SECONDS
    code: int | None = _service_subprocess(self, max_wait_time, *args, **kwargs)
    while code is None and time.monotonic() < until and self.selector.select(timeout=0):
        code = _service_subprocess(self, 0.0, *args, **kwargs)
    return code


class StepWatch:
    """How long the runner has been blocked in the same step.

    A step that waits for a CPU is not blocked, nor is one during which this process stood still too.
    """

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.oom_kills_before = oom_kills()
        self._step = -1
        self._checked_at = self._cpu = self._step_seconds = self._sleep_seconds = self._cpu_seconds = 0.0

    def seconds(self) -> float:
        """Return the seconds in the current step, 0 while it may be starved. Call it about once a second."""
        try:
            times = self._process.cpu_times()
            sleeps = self._process.status() == psutil.STATUS_SLEEPING
        except psutil.Error:
            return 0.0
        now, cpu = time.monotonic(), times.user + times.system
        if culprit() and _cells[NUMBER] == self._step:
            elapsed = min(now - self._checked_at, MAX_CHECK_GAP)
            self._step_seconds += elapsed
            self._sleep_seconds += elapsed if sleeps else 0.0
            self._cpu_seconds += cpu - self._cpu
        else:
            self._step = _cells[NUMBER]
            self._step_seconds = self._sleep_seconds = self._cpu_seconds = 0.0
        self._checked_at, self._cpu = now, cpu
        return (
            self._step_seconds
            if self._sleep_seconds > self._step_seconds / 2 or self._cpu_seconds > BUSY_SECONDS
            else 0.0
        )


_watch: StepWatch | None = None
"""The watch of the runner that this process supervises."""
_ended = False
"""Whether heartbeat() killed the runner and failed its culprit."""


def heartbeat(self: TriggerRunnerSupervisor) -> None:
    """Call the upstream method; first fail a trigger that blocks the runner, and kill the runner."""
    global _ended
    limit = self.runner_health_check_threshold
    if _watch and 0 < limit < (seconds := _watch.seconds()) and not _ended:
        fail_culprit(self, culprit(), f"was blocked for {seconds:.0f} s")
        _ended = True
        self.kill(signal.SIGKILL)
    _heartbeat(self)


def run(self: TriggerRunnerSupervisor) -> None:
    """Call the upstream method, which returns when the runner has exited; then fail the culprit."""
    global _watch
    _watch = StepWatch(self.pid)
    _run(self)
    if not (self.is_alive() or self.stop or _ended) and (trigger_id := culprit()):
        fail_culprit(self, trigger_id, exit_reason(self._exit_code, _watch.oom_kills_before))


def apply() -> None:
    """Fail only the faulty trigger."""
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
