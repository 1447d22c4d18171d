"""A task that may have been given to another is suspended, until Airflow says whose it is, or for too long.

Problem: a task whose worker is cut off, or was frozen, goes on beside the try that the scheduler starts elsewhere
after `[scheduler] task_instance_heartbeat_timeout`. A heartbeat, like any call, is retried for minutes, in which no
other is sent (https://github.com/apache/airflow/pull/73244). One that is refused (401, 403) ends no task: only
`max_failed_heartbeats` does, which ends healthy tasks too while the database is away.
Patch: an accepted heartbeat is a lease, for LEASE_SECONDS from when it was sent: less than the scheduler waits. When it
runs out a thread stops the task's processes (SIGSTOP); the next accepted heartbeat continues them. The task ends on
404, 409 and 410 as upstream's, on 401 and 403 once its lease has run out, and after `TASK_SUSPENSION_LIMIT`.
Heartbeats are tried once, every 5 s from the start on, and between the tries of other calls too.
Applies to: Airflow 3.3.2, `airflow.sdk.execution_time.supervisor`, `.task_runner` and `airflow.sdk.api.client`.
Workers. What it guarantees, and what not: task_process/SUSPENSION.md.
Upstream issue: https://github.com/apache/airflow/issues/7925
Remove when: the tests in test_heartbeat_lease.py that name upstream fail.
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
    """Return for how long an accepted heartbeat is a lease.

    Args:
        timeout: Seconds without a heartbeat after which the scheduler counts a task as dead.
        interval: Seconds between two heartbeats.
        answer: The longest that a call is under way before it is answered.

    Raises:
        SettingError: A heartbeat that is answered in time would come after the lease's end.
    """
    if timeout - answer <= interval + answer:
        raise SettingError(
            f"cannot lease tasks: [scheduler] task_instance_heartbeat_timeout ({timeout:g} s) is not over "
            f"{interval + 2 * answer:g} s, [workers] min_heartbeat_interval ({interval:g} s) and twice "
            f"execution_api_timeout ({answer:g} s). hint: raise the first, or lower the last"
        )
    return timeout - answer


ANSWER_SECONDS = API_TIMEOUT
LEASE_SECONDS = lease_seconds(supervisor.HEARTBEAT_TIMEOUT, supervisor.MIN_HEARTBEAT_INTERVAL, ANSWER_SECONDS)
"""From when an accepted heartbeat was sent: the scheduler counts from when it was written."""
IS_ON = suspension.is_on()
LIMIT_SECONDS = suspension.limit_seconds()
ASK_AGAIN_SECONDS = 1.0
"""Between two looks at a suspended task."""
REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
"""The Execution API does not accept the task's token: it has expired, or was signed with another secret. The gateway's
own answers are no JSON, and do not count (ServerResponseError). One may be transient, as when two servers have
different secrets for a while: hence not before the lease has run out."""

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
    """Nobody waits any more for the call that is being tried again: its task was ended."""


class Lease:
    """One task's, for as long as its process is watched.

    Args:
        task: whose.
        begun: From when it counts, by the monotonic clock.
    """

    def __init__(self, task: ActivitySubprocess, begun: float) -> None:
        self.task = task
        self.suspended = False
        self._others: set[psutil.Process] = set()
        self._expires = begun + LEASE_SECONDS
        self._expired_at: float | None = None
        """When its end was noticed; None while it holds."""
        self._changed = threading.Condition()
        self._over = False
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
            self._over = True
            self._changed.notify()
        self._thread.join()
        suspension.forget()

    @property
    def has_expired(self) -> bool:
        """Whether the task may have been started elsewhere."""
        return time.monotonic() >= self._expires

    def renew(self, expires: float) -> None:
        """It holds until then, by the monotonic clock; a suspended task goes on."""
        with self._changed:
            # A later end is found at the earlier one: every look at a task renews, and to wake a thread is not free.
            must_know = self._expired_at is not None or expires < self._expires
            self._expires = expires
            if self.suspended:
                self._resume()
            self._expired_at = None
            if must_know:
                self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while not self._over:
                left = self._due() - time.monotonic()
                if left > 0:
                    # A thread cannot wait for ever by number.
                    self._changed.wait(left if left < threading.TIMEOUT_MAX else None)
                elif self._expired_at is None:
                    self._expire()
                else:
                    self._end()

    def _due(self) -> float:
        """Return when something must be done next, by the monotonic clock."""
        if self._expired_at is None:
            return self._expires
        return self._expired_at + LIMIT_SECONDS if self.suspended else math.inf

    def _log(self, level: str, message: str, **values: float) -> None:
        """Write into the task's log, or not: a full disk must not end the thread that ends the task."""
        with contextlib.suppress(Exception):
            getattr(self.task.process_log, level)(message, **values)

    def _has_ended(self) -> bool:
        return self.task._exit_code is not None or self.task._terminal_state is not None

    def _expire(self) -> None:
        self._expired_at = time.monotonic()
        if self._has_ended():  # what is left is its last messages
            return
        what = "No heartbeat was accepted for too long: the task may be started elsewhere. "
        if not IS_ON:
            self._log("warning", what + "It goes on (TASK_SUSPENSION=off)", seconds=LEASE_SECONDS)
        elif suspension.has_opted_out(self.task.pid):
            self._log(
                "warning",
                what + f"It goes on, as its executor_config says ({suspension.OPT_OUT!r})",
                seconds=LEASE_SECONDS,
            )
        else:
            self._suspend()
            self._log(
                "warning",
                what + "It is suspended until Airflow answers that it is still this try's",
                seconds=LEASE_SECONDS,
                limit=LIMIT_SECONDS,
            )

    def _suspend(self) -> None:
        self.suspended = True
        with contextlib.suppress(psutil.Error, OSError):
            _signal_subprocess(self.task, signal.SIGSTOP)
            # Those that left its process group, as the shell of a BashOperator does, and what they start meanwhile;
            # its orphans are children of this process (task_process.py).
            while found := set(psutil.Process().children(recursive=True)) - self._others:
                self._others |= found
                for process in found:
                    with contextlib.suppress(psutil.Error):
                        process.suspend()

    def _resume(self) -> None:
        self.suspended = False
        if self._expired_at is not None:
            suspension.add_held(time.monotonic() - self._expired_at)
        for process in self._others:
            with contextlib.suppress(psutil.Error):
                process.resume()
        self._others.clear()
        with contextlib.suppress(psutil.Error, OSError):
            _signal_subprocess(self.task, signal.SIGCONT)
        self._log("info", "The task is no longer suspended")

    def _end(self) -> None:
        """End the task, which nobody can ask whose it is; its supervisor reports nothing, as when a server ends it."""
        self.suspended = False
        if self._has_ended():
            return
        self.task._terminal_state = supervisor.SERVER_TERMINATED
        for process in self._others:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._others.clear()
        with contextlib.suppress(psutil.Error, OSError):
            _signal_subprocess(self.task, signal.SIGKILL)
        self._log(
            "error",
            "No heartbeat was accepted while the task was suspended, for as long as a suspension may last "
            "(TASK_SUSPENSION_LIMIT). The task is ended (SIGKILL); the scheduler decides whether it is retried",
            limit=LIMIT_SECONDS,
        )


_lease: Lease | None = None
"""Of the task that this process watches: a process of the worker's pool has one at a time."""


def monitor_subprocess(self: ActivitySubprocess) -> None:
    """As upstream's, under a lease, and without a heartbeat that says again what the start has just said."""
    # The start, which is written as a heartbeat, was sent after the fork, and no longer ago than a try takes.
    since_fork = ANSWER_SECONDS
    with contextlib.suppress(psutil.NoSuchProcess):
        since_fork = time.time() - psutil.Process(self.pid).create_time()
    begun = time.monotonic() - min(max(since_fork, 0.0), ANSWER_SECONDS)
    self._last_heartbeat_attempt = begun
    with Lease(self, begun):
        _monitor_subprocess(self)


def send_heartbeat_if_needed(self: ActivitySubprocess) -> None:
    """As upstream's; one that was accepted renews the lease, and a task that has told its end needs none."""
    _send_heartbeat_if_needed(self)
    if _lease and _lease.task is self:
        if self._terminal_state:
            _lease.renew(math.inf)
        elif self._last_successful_heartbeat >= self._last_heartbeat_attempt:
            _lease.renew(self._last_heartbeat_attempt + LEASE_SECONDS)


def handle_heartbeat_failures(self: ActivitySubprocess, exc: Exception) -> None:
    """As upstream's; a task that is refused when its lease has run out is ended, as on 409."""
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
        "The Execution API refuses this task's token, and its lease has run out: the task was silent for longer than "
        "the token lives, or the signing secret was changed. The task is ended; the scheduler decides whether it is "
        "retried",
        status_code=exc.response.status_code,
        detail=exc.detail,
    )
    self.kill(signal.SIGTERM, force=True)
    self._terminal_state = supervisor.SERVER_TERMINATED


def signal_subprocess(self: ActivitySubprocess, sig: signal.Signals) -> None:
    """As upstream's; a suspended task goes on with that signal first of all, so that it can act on it."""
    _signal_subprocess(self, sig)
    if _lease and _lease.task is self:
        _lease.renew(math.inf)


def service_subprocess(self: ActivitySubprocess, max_wait_time: float, *args: Any, **kwargs: Any) -> int | None:
    """As upstream's, which does not wait at all once the last heartbeat is long ago, and keeps a core busy."""
    if _lease and _lease.task is self and _lease.suspended:
        max_wait_time = max(max_wait_time, ASK_AGAIN_SECONDS)
    code: int | None = _service_subprocess(self, max_wait_time, *args, **kwargs)
    return code


def send_msg(self: ActivitySubprocess, *args: Any, **kwargs: Any) -> None:
    """As upstream's, once the task is no longer suspended: until then it reads nothing, and the sender would hang."""
    while _lease and _lease.task is self and _lease.suspended:
        self._last_heartbeat_attempt = -math.inf
        self._send_heartbeat_if_needed()
        if _lease.suspended:
            _sleep(ASK_AGAIN_SECONDS)
    _send_msg(self, *args, **kwargs)


def prepare(ti: Any, *args: Any, **kwargs: Any) -> Any:
    """As upstream's, in the task's process, before anything of the task runs; a task that opts out says so first."""
    if (getattr(ti.task, "executor_config", None) or {}).get(suspension.OPT_OUT) is False:
        suspension.opt_out()
    return _prepare(ti, *args, **kwargs)


def try_again(state: RetryCallState) -> bool:
    """Whether a failed call is worth another try: never a heartbeat, since the next is due in 5 s."""
    url = str(state.args[2]) if len(state.args) > 2 else ""
    return not url.endswith("/heartbeat") and bool(_retry(state))


def sleep(seconds: float) -> None:
    """Between two tries of a call: sends the heartbeat that is due meanwhile.

    Raises:
        TaskEndedError: The answer ended the task.
    """
    if _lease and _lease.task._exit_code is None:
        _lease.task._send_heartbeat_if_needed()
        if _lease.task._terminal_state == supervisor.SERVER_TERMINATED:
            raise TaskEndedError(f"task instance {_lease.task.id} was ended")
    _sleep(seconds)


def apply() -> None:
    """Suspend a task whose lease has run out, in place of ending it after some failed heartbeats."""
    supervisor.MAX_FAILED_HEARTBEATS = sys.maxsize
    ActivitySubprocess._monitor_subprocess = monitor_subprocess
    ActivitySubprocess._send_heartbeat_if_needed = send_heartbeat_if_needed
    ActivitySubprocess._handle_heartbeat_failures = handle_heartbeat_failures
    ActivitySubprocess._signal_subprocess = signal_subprocess
    ActivitySubprocess._service_subprocess = service_subprocess
    ActivitySubprocess.send_msg = send_msg
    task_runner._prepare = prepare
    _call.retry.retry = try_again
    _call.retry.sleep = sleep
    worker_process_init.connect(suspension.share_with_tasks)
