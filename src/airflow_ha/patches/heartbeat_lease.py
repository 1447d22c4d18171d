"""A task whose next try may start elsewhere is suspended until Airflow confirms its current try, up to a limit.

Problem: a task whose worker is partitioned or was frozen runs on beside the try that the scheduler starts elsewhere
after `[scheduler] task_instance_heartbeat_timeout`. A heartbeat, like any call, is retried for minutes, and no other is
sent meanwhile (https://github.com/apache/airflow/pull/73244). A refused heartbeat (401, 403) ends no task. Only
`max_failed_heartbeats` does, which also ends healthy tasks during a database outage.
Patch: an accepted heartbeat is a lease for LEASE_SECONDS from when it was sent, less than the scheduler's timeout. When
it expires, a thread suspends the task's processes (SIGSTOP); the next accepted heartbeat resumes them. The task ends on
404, 409 and 410 as upstream, on 401 and 403 after its lease expired, and after `TASK_SUSPENSION_LIMIT`. Heartbeats are
not retried; they are sent every 5 s from the start, also between the retries of other calls.
Applies to: Airflow 3.3.2, `airflow.sdk.execution_time.supervisor`, `.task_runner` and `airflow.sdk.api.client` in
workers. task_process/SUSPENSION.md states its guarantees and their limits.
Upstream issue: https://github.com/apache/airflow/issues/7925
Remove when: the tests in `test_heartbeat_lease.py` that name upstream fail.
"""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import threading
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import psutil
from airflow.sdk.api.client import API_TIMEOUT, Client, ServerResponseError
from airflow.sdk.execution_time import supervisor, task_runner
from airflow.sdk.execution_time.supervisor import ActivitySubprocess
from celery.signals import worker_process_init

from airflow_ha.setting_error import SettingError
from airflow_ha.task_process import suspension

if TYPE_CHECKING:
    from types import TracebackType

    from tenacity import RetryCallState


def lease_seconds(timeout: float, interval: float, answer: float) -> float:
    """Return the duration of the lease that an accepted heartbeat grants.

    Args:
        timeout: Seconds without a heartbeat after which the scheduler fails a task.
        interval: Seconds between two heartbeats.
        answer: Longest duration of a call, in seconds.

    Raises:
        SettingError: A heartbeat that is answered in time could arrive after the lease's end.
    """
    if timeout - answer <= interval + answer:
        raise SettingError(
            f"cannot lease tasks: [scheduler] task_instance_heartbeat_timeout ({timeout:g} s) must exceed "
            f"{interval + 2 * answer:g} s, the sum of [workers] min_heartbeat_interval ({interval:g} s) and twice "
            f"execution_api_timeout ({answer:g} s). hint: raise task_instance_heartbeat_timeout"
        )
    return timeout - answer


ANSWER_SECONDS = API_TIMEOUT
LEASE_SECONDS = lease_seconds(supervisor.HEARTBEAT_TIMEOUT, supervisor.MIN_HEARTBEAT_INTERVAL, ANSWER_SECONDS)
"""Counted from when the heartbeat was sent; the scheduler counts from when it was written, which is later."""
IS_ON = suspension.is_on()
LIMIT_SECONDS = suspension.limit_seconds()
SUSPENDED_HEARTBEAT_SECONDS = 1.0
"""Interval between two heartbeats of a suspended task."""
REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
"""The Execution API refuses the task's token: it expired, or was signed with another secret. The gateway's own answers
are not JSON and do not count (ServerResponseError). A refusal may be transient, for example while servers have
different secrets, so it ends no task before its lease expires."""

_monitor_subprocess = ActivitySubprocess._monitor_subprocess
_send_heartbeat_if_needed = ActivitySubprocess._send_heartbeat_if_needed
_handle_heartbeat_failures = ActivitySubprocess._handle_heartbeat_failures
_signal_subprocess = ActivitySubprocess._signal_subprocess
_service_subprocess = ActivitySubprocess._service_subprocess
_send_msg = ActivitySubprocess.send_msg
_prepare: Any = task_runner._prepare
_call: Any = Client.request
_retry, _sleep = _call.retry.retry, _call.retry.sleep


class TaskEndedError(RuntimeError):
    """A call is not retried any more, because its task was ended."""


class Lease:
    """The lease of one task, while its process is supervised.

    Args:
        task: The task's supervisor.
        started: Monotonic time from which the lease counts.
    """

    def __init__(self, task: ActivitySubprocess, started: float) -> None:
        self.task = task
        self.suspended = False
        self._descendants: set[psutil.Process] = set()
        self._expires = started + LEASE_SECONDS
        self._expired_at: float | None = None
        """Monotonic time at which the expiry was noticed; None while the lease is valid."""
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._watch, name="task-lease", daemon=True)

    def __enter__(self) -> None:
        global _lease
        _lease = self
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        global _lease
        _lease = None
        self.renew(math.inf)
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()
        suspension.forget()

    @property
    def has_expired(self) -> bool:
        """Whether the task may have been started elsewhere."""
        return time.monotonic() >= self._expires

    def renew(self, expires: float) -> None:
        """Set the expiry, in monotonic time; resume a suspended task."""
        with self._changed:
            # The thread finds a later expiry by itself: each heartbeat renews, and waking a thread costs CPU.
            must_wake = self._expired_at is not None or expires < self._expires
            self._expires = expires
            if self.suspended:
                self._resume()
            self._expired_at = None
            if must_wake:
                self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while not self._is_closed:
                left = self._due() - time.monotonic()
                if left > 0:
                    # A wait has a maximum; None waits forever.
                    self._changed.wait(left if left < threading.TIMEOUT_MAX else None)
                elif self._expired_at is None:
                    self._expire()
                else:
                    self._kill()

    def _due(self) -> float:
        """Return the monotonic time of the next action."""
        if self._expired_at is None:
            return self._expires
        return self._expired_at + LIMIT_SECONDS if self.suspended else math.inf

    def _log(self, level: str, message: str, **values: float) -> None:
        """Write to the task's log; ignore errors, because a full disk must not end the thread that ends the task."""
        with contextlib.suppress(Exception):
            getattr(self.task.process_log, level)(message, **values)

    def _has_ended(self) -> bool:
        return self.task._exit_code is not None or self.task._terminal_state is not None

    def _expire(self) -> None:
        self._expired_at = time.monotonic()
        if self._has_ended():  # only its last messages remain
            return
        reason = "No heartbeat was accepted for too long: the task may be started elsewhere. "
        if not IS_ON:
            self._log("warning", reason + "It keeps running (TASK_SUSPENSION=off)", seconds=LEASE_SECONDS)
        elif suspension.has_opted_out(self.task.pid):
            self._log(
                "warning",
                reason + f"It keeps running, because its executor_config opts out ({suspension.OPT_OUT!r})",
                seconds=LEASE_SECONDS,
            )
        else:
            self._suspend()
            self._log(
                "warning",
                reason + "It is suspended until Airflow confirms that this try is current",
                seconds=LEASE_SECONDS,
                limit=LIMIT_SECONDS,
            )

    def _suspend(self) -> None:
        self.suspended = True
        with contextlib.suppress(psutil.Error, OSError):
            _signal_subprocess(self.task, signal.SIGSTOP)
            # The loop stops descendants that left its process group (a BashOperator's shell) or that start meanwhile.
            # Orphans are children of this process (task_process).
            while new := set(psutil.Process().children(recursive=True)) - self._descendants:
                self._descendants |= new
                for process in new:
                    with contextlib.suppress(psutil.Error):
                        process.suspend()

    def _resume(self) -> None:
        self.suspended = False
        if self._expired_at is not None:
            suspension.add_held(time.monotonic() - self._expired_at)
        for process in self._descendants:
            with contextlib.suppress(psutil.Error):
                process.resume()
        self._descendants.clear()
        with contextlib.suppress(psutil.Error, OSError):
            _signal_subprocess(self.task, signal.SIGCONT)
        self._log("info", "The task is resumed")

    def _kill(self) -> None:
        """Kill the task; its supervisor reports no state, as when the server ended it."""
        self.suspended = False
        if self._has_ended():
            return
        self.task._terminal_state = supervisor.SERVER_TERMINATED
        for process in self._descendants:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._descendants.clear()
        with contextlib.suppress(psutil.Error, OSError):
            _signal_subprocess(self.task, signal.SIGKILL)
        self._log(
            "error",
            "No heartbeat was accepted before the suspension limit (TASK_SUSPENSION_LIMIT). The task is killed "
            "(SIGKILL); the scheduler decides on a retry",
            limit=LIMIT_SECONDS,
        )


_lease: Lease | None = None
"""The lease of the current task: a pool process runs one task at a time."""


def monitor_subprocess(self: ActivitySubprocess) -> None:
    """Call the upstream method under a lease, without a heartbeat that repeats the start."""
    # The start counts as a heartbeat. It was sent after the fork, and at most ANSWER_SECONDS ago.
    since_fork = ANSWER_SECONDS
    with contextlib.suppress(psutil.NoSuchProcess):
        since_fork = time.time() - psutil.Process(self.pid).create_time()
    started = time.monotonic() - min(max(since_fork, 0.0), ANSWER_SECONDS)
    self._last_heartbeat_attempt = started
    with Lease(self, started):
        _monitor_subprocess(self)


def send_heartbeat_if_needed(self: ActivitySubprocess) -> None:
    """Call the upstream method; renew the lease if the heartbeat was accepted or the task has finished."""
    _send_heartbeat_if_needed(self)
    if _lease and _lease.task is self:
        if self._terminal_state:
            _lease.renew(math.inf)
        elif self._last_successful_heartbeat >= self._last_heartbeat_attempt:
            _lease.renew(self._last_heartbeat_attempt + LEASE_SECONDS)


def handle_heartbeat_failures(self: ActivitySubprocess, exc: Exception) -> None:
    """Call the upstream method; end a task that is refused after its lease expired, as on 409."""
    if not (
        _lease
        and _lease.task is self
        and _lease.has_expired
        and isinstance(exc, ServerResponseError)
        and exc.response.status_code in REFUSED
    ):
        _handle_heartbeat_failures(self, exc)
        return
    self.process_log.error(
        "The Execution API refuses this task's token, and its lease has expired: the task was silent for longer than "
        "the token's lifetime, or the signing secret changed. The task is ended; the scheduler decides on a retry",
        status_code=exc.response.status_code,
        detail=exc.detail,
    )
    self.kill(signal.SIGTERM, force=True)
    self._terminal_state = supervisor.SERVER_TERMINATED


def signal_subprocess(self: ActivitySubprocess, sig: signal.Signals) -> None:
    """Call the upstream method, then resume a suspended task, which handles the signal first."""
    _signal_subprocess(self, sig)
    if _lease and _lease.task is self:
        _lease.renew(math.inf)


def service_subprocess(self: ActivitySubprocess, max_wait_time: float, *args: Any, **kwargs: Any) -> int | None:
    """Call the upstream method; limit its rate for a suspended task, for which upstream would not wait at all."""
    if _lease and _lease.task is self and _lease.suspended:
        max_wait_time = max(max_wait_time, SUSPENDED_HEARTBEAT_SECONDS)
    code: int | None = _service_subprocess(self, max_wait_time, *args, **kwargs)
    return code


def send_msg(self: ActivitySubprocess, *args: Any, **kwargs: Any) -> None:
    """Call the upstream method once the task is resumed: a suspended task reads nothing, so the sender would block."""
    while _lease and _lease.task is self and _lease.suspended:
        self._last_heartbeat_attempt = -math.inf
        self._send_heartbeat_if_needed()
        if _lease.suspended:
            _sleep(SUSPENDED_HEARTBEAT_SECONDS)
    _send_msg(self, *args, **kwargs)


def prepare(ti: Any, *args: Any, **kwargs: Any) -> Any:
    """Register a task's opt-out in its process, then call the upstream function."""
    if (getattr(ti.task, "executor_config", None) or {}).get(suspension.OPT_OUT) is False:
        suspension.opt_out()
    return _prepare(ti, *args, **kwargs)


def should_retry(state: RetryCallState) -> bool:
    """Return whether a failed call is retried; a heartbeat never is, because the next is due in 5 s."""
    url = str(state.args[2]) if len(state.args) > 2 else ""
    return not url.endswith("/heartbeat") and bool(_retry(state))


def sleep(seconds: float) -> None:
    """Send a due heartbeat, then sleep between two retries of a call.

    Raises:
        TaskEndedError: The answer ended the task.
    """
    if _lease and _lease.task._exit_code is None:
        _lease.task._send_heartbeat_if_needed()
        if _lease.task._terminal_state == supervisor.SERVER_TERMINATED:
            raise TaskEndedError(f"task instance {_lease.task.id} was ended")
    _sleep(seconds)


def apply() -> None:
    """Suspend a task whose lease has expired, instead of ending it after some failed heartbeats."""
    supervisor.MAX_FAILED_HEARTBEATS = sys.maxsize
    ActivitySubprocess._monitor_subprocess = monitor_subprocess
    ActivitySubprocess._send_heartbeat_if_needed = send_heartbeat_if_needed
    ActivitySubprocess._handle_heartbeat_failures = handle_heartbeat_failures
    ActivitySubprocess._signal_subprocess = signal_subprocess
    ActivitySubprocess._service_subprocess = service_subprocess
    ActivitySubprocess.send_msg = send_msg
    task_runner._prepare = prepare
    _call.retry.retry = should_retry
    _call.retry.sleep = sleep
    worker_process_init.connect(suspension.share_with_tasks)
