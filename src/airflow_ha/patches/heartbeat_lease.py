"""A task that may have been given to another is suspended, until Airflow says whose it is.

The faults, in Airflow 3.3.2's `airflow.sdk.execution_time.supervisor`:

1. A task whose worker is cut off, or was frozen, goes on beside the attempt that the scheduler starts elsewhere after
   `[scheduler] task_instance_heartbeat_timeout`. Nobody can tell it, and it does not ask itself.
2. A heartbeat is tried `[workers] execution_api_retries` times, for minutes, in which the supervisor does nothing else
   (https://github.com/apache/airflow/pull/73244).
3. So does any other call that is tried again: meanwhile no heartbeat is sent, and a healthy task counts as dead.
4. After `[workers] max_failed_heartbeats` a task is killed, also while the database is away and nobody can start it
   anew. Whether one is cut off, or all are, cannot be told from here: the gateway's 503, a time-out and a refused
   connection can each mean both.
5. A heartbeat follows the start of a task at once, though the start was one: a fifth of the calls of a short task.

The work-round: an accepted heartbeat is a lease, for LEASE_SECONDS from when it was sent: less than the scheduler
waits. When it runs out a thread stops the task with all its processes (SIGSTOP), whatever the supervisor is waiting
for. The next accepted heartbeat continues it, and an answer that it is no longer this attempt's ends it, as always. So
an outage costs no attempt, however long it lasts, and none runs beside its successor. Heartbeats are tried once, every
5 s from the start on, and between the tries of other calls too; `max_failed_heartbeats` is set out of reach
(compose/airflow.yaml).

It can go when upstream has a lease (asked for in https://github.com/apache/airflow/issues/7925) and the tests in
`test_supervisor_lease.py` that name upstream fail. Loaded by workers through `imports` in Celery's settings.
"""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import psutil
from airflow.sdk.api.client import Client
from airflow.sdk.execution_time import supervisor
from airflow.sdk.execution_time.supervisor import ActivitySubprocess

if TYPE_CHECKING:
    from types import TracebackType

    from tenacity import RetryCallState

ANSWER_SECONDS = 5.0
"""The longest that a call is under way before it is answered (`[workers] execution_api_timeout`)."""
LEASE_SECONDS = supervisor.HEARTBEAT_TIMEOUT - ANSWER_SECONDS
"""From when an accepted heartbeat was sent: the scheduler counts from when it was written."""
ASK_AGAIN_SECONDS = 1.0
"""Between two looks at a suspended task."""

_monitor_subprocess = ActivitySubprocess._monitor_subprocess
_send_heartbeat_if_needed = ActivitySubprocess._send_heartbeat_if_needed
_signal_subprocess = ActivitySubprocess._signal_subprocess
_service_subprocess = ActivitySubprocess._service_subprocess
_send_msg = ActivitySubprocess.send_msg
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

    def renew(self, expires: float) -> None:
        """It holds until then, by the monotonic clock; a suspended task goes on."""
        with self._changed:
            # A later end is found at the earlier one: every look at a task renews, and to wake a thread is not free.
            must_know = self.suspended or expires < self._expires
            self._expires = expires
            if self.suspended:
                self._resume()
            if must_know:
                self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while not self._over:
                left = self._expires - time.monotonic()
                if left <= 0 and not self.suspended:
                    self._suspend()
                # Until it is renewed, where it has run out; a thread cannot wait for ever by number.
                self._changed.wait(left if 0 < left < threading.TIMEOUT_MAX else None)

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
        self.task.process_log.warning(
            "No heartbeat was accepted for too long: the task may be started elsewhere. "
            "It is suspended until Airflow answers that it is still this attempt's",
            seconds=LEASE_SECONDS,
        )

    def _resume(self) -> None:
        self.suspended = False
        for process in self._others:
            with contextlib.suppress(psutil.Error):
                process.resume()
        self._others.clear()
        with contextlib.suppress(psutil.Error, OSError):
            _signal_subprocess(self.task, signal.SIGCONT)
        self.task.process_log.info("The task is no longer suspended")


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
    ActivitySubprocess._signal_subprocess = signal_subprocess
    ActivitySubprocess._service_subprocess = service_subprocess
    ActivitySubprocess.send_msg = send_msg
    _call.retry.retry = try_again
    _call.retry.sleep = sleep
