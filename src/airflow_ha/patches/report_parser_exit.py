"""A DAG file that crashes or blocks its parser becomes an import error and delays no other file.

Problem: if the process that parses a file is killed, exits or exceeds `[dag_processor] dag_file_processor_timeout`,
  nothing is stored. The file's DAGs stay unchanged, and neither UI nor API shows a reason. The same happens if the
  database refuses a file's content. A slow failing file is parsed again every 30 s, and a process that it leaves behind
  keeps its slot.
Patch: the exit code, signal, memory limit or timeout becomes the file's import error. The parser is the kernel's first
  OOM target and has its own process group. A slow failing file is not parsed until it changes, or for four times its
  parse time. A parser that was starved of CPU is not an error of its file.
Applies to: Airflow 3.3.2, `airflow.dag_processing.manager`.
Upstream issue: none found.
Remove when: the tests in `test_report_parser_exit.py` that name upstream fail.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from typing import TYPE_CHECKING, Any, Final

import psutil
from airflow._shared.timezones import timezone
from airflow.dag_processing import processor
from airflow.dag_processing.manager import DagFileProcessorManager
from airflow.dag_processing.processor import DagFileParseRequest, DagFileParsingResult, DagFileProcessorProcess
from airflow.sdk.execution_time import task_runner
from airflow.utils.session import create_session
from sqlalchemy.exc import OperationalError

from airflow_ha.patches.dag_import_signals import end_at_fatal_signals
from airflow_ha.storable_text import storable_text
from airflow_ha.task_process.container_memory import oom_kills
from airflow_ha.task_process.process_exit import exit_reason, prefer_as_oom_target

if TYPE_CHECKING:
    from airflow.dag_processing.manager import DagFileInfo

log = logging.getLogger(__name__)

SLOW_SECONDS: Final = 5.0
"""A failing file that takes longer is parsed less often."""
REST_FACTOR: Final = 4
LONGEST_REST: Final = 180.0
"""Seconds; with the parse, less than the alert AirflowDagProcessingSlow allows between two parses (300)."""
STARVED_SECONDS: Final = 4.0
"""CPU time: a runnable process that had less at its timeout is starved, not stuck."""
DRAIN_SECONDS: Final = 2.0
"""Seconds to read a dead parser's output while a process that it left behind holds its sockets."""

_parse_file: Any = processor._parse_file
_parse_file_entrypoint: Any = processor._parse_file_entrypoint
_start: Any = DagFileProcessorProcess.start.__func__
_is_ready: Any = DagFileProcessorProcess.is_ready.fget
_close: Any = DagFileProcessorProcess.close
_handle_parsing_result: Any = DagFileProcessorManager.handle_parsing_result
_persist_parsing_result: Any = DagFileProcessorManager.persist_parsing_result
_kill_timed_out_processors: Any = DagFileProcessorManager._kill_timed_out_processors
_prepare_file_queue: Any = DagFileProcessorManager.prepare_file_queue

_oom_kills_before: dict[int, int] = {}
"""The kernel's count of OOM kills when a parser started, by its process id."""

# ---- the parser

_request: DagFileParseRequest | None = None
"""The request that this process parses."""


def parse_file(msg: DagFileParseRequest, *args: Any) -> DagFileParsingResult | None:
    """Call the upstream function, and keep the request for the failure handler."""
    global _request
    _request = msg
    result: DagFileParsingResult | None = _parse_file(msg, *args)
    return result


def parse_file_entrypoint() -> None:
    """Run the upstream entry point in a process that fatal signals end and that is an early OOM target."""
    prefer_as_oom_target()
    end_at_fatal_signals()
    try:
        _parse_file_entrypoint()
    except Exception as error:  # for example, a result that cannot be sent
        if _request is None or _request.callback_requests:
            raise
        log.exception("cannot parse %s", _request.file)
        reason = storable_text(f"What this file defines cannot be sent: {type(error).__name__}: {error}")
        rel_path = os.path.relpath(_request.file, _request.bundle_path)
        task_runner.SUPERVISOR_COMMS.send(
            DagFileParsingResult(fileloc=_request.file, serialized_dags=[], import_errors={rel_path: reason})
        )


def start(cls: type[DagFileProcessorProcess], /, **kwargs: Any) -> DagFileProcessorProcess:
    """Start the process as upstream does, in its own process group, so that group signals do not reach the manager."""
    kwargs.setdefault("target", parse_file_entrypoint)
    before = oom_kills()
    process: DagFileProcessorProcess = _start(cls, **kwargs, new_process_group=True)
    _oom_kills_before[process.pid] = before
    return process


def is_ready(self: DagFileProcessorProcess) -> bool:
    """Return upstream's value, or True if the process ended but a process that it left behind holds its sockets."""
    ready: bool = _is_ready(self)
    ended = self._process_exit_monotonic
    return ready or (ended is not None and time.monotonic() - ended > DRAIN_SECONDS)


def close(self: DagFileProcessorProcess) -> None:
    """Call the upstream method, and kill the processes that the file left in its process group."""
    _oom_kills_before.pop(self.pid, None)
    if self._new_process_group and self.pid != os.getpgid(0):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
    _close(self)


# ---- the manager


def failure(file: DagFileInfo, reason: str) -> DagFileParsingResult:
    """Return the result of a failed file, in the form that upstream uses for a file that raised an error."""
    return DagFileParsingResult(
        fileloc=str(file.absolute_path), serialized_dags=[], import_errors={str(file.rel_path): reason}
    )


def handle_parsing_result(
    self: DagFileProcessorManager, file: DagFileInfo, proc: DagFileProcessorProcess, **kwargs: Any
) -> None:
    """Call the upstream method; turn the exit of a parser without a result into an import error."""
    if proc.parsing_result is None and not proc.had_callbacks:
        reason = exit_reason(proc._exit_code, _oom_kills_before.get(proc.pid, 0))
        log.error("The process that parsed %s %s", file.rel_path, reason)
        proc.parsing_result = failure(
            file, f"The process that parsed this file {reason}, before it had read the file to its end."
        )
    _handle_parsing_result(self, file, proc, **kwargs)


def persist_parsing_result(self: DagFileProcessorManager, **kwargs: Any) -> None:
    """Call the upstream method; turn a result that the database refuses into an import error."""
    result: DagFileParsingResult = kwargs["parsing_result"]
    if result.import_errors:
        result.import_errors = {storable_text(file): storable_text(text) for file, text in result.import_errors.items()}
    try:
        _persist_parsing_result(self, **kwargs)
    except OperationalError:
        raise
    except Exception as error:
        if kwargs["relative_fileloc"] is None:
            raise
        log.exception("cannot store the DAGs of %s", kwargs["relative_fileloc"])
        kwargs["session"].rollback()
        reason = storable_text(f"The DAGs of this file cannot be stored: {type(error).__name__}: {str(error)[:2000]}")
        refused_result = DagFileParsingResult(
            fileloc=result.fileloc, serialized_dags=[], import_errors={kwargs["relative_fileloc"]: reason}
        )
        _persist_parsing_result(self, **{**kwargs, "parsing_result": refused_result})


def is_starved(pid: int) -> bool:
    """Return whether a process is runnable but has had little CPU time."""
    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        return process.status() == psutil.STATUS_RUNNING and times.user + times.system < STARVED_SECONDS
    except psutil.Error:
        return False


def kill_timed_out_processors(self: DagFileProcessorManager) -> None:
    """Call the upstream method; turn each killed parser without a result into an import error."""
    now = time.monotonic()
    overdue = {file: proc for file, proc in self._processors.items() if now - proc.start_time > self.processor_timeout}
    starved = {file for file, proc in overdue.items() if is_starved(proc.pid)}
    _kill_timed_out_processors(self)
    for file, proc in overdue.items():
        if file in self._processors or proc.had_callbacks:
            continue
        if file in starved and not proc.parsing_result:
            self._file_stats[file].last_duration = 0.0  # parse it again without a delay
            continue
        proc.parsing_result = proc.parsing_result or failure(
            file,
            f"The process that parsed this file was killed after {self.processor_timeout:.0f} s "
            "([dag_processor] dag_file_processor_timeout).",
        )
        with create_session() as session:
            _handle_parsing_result(self, file, proc, session=session)


def is_resting(self: DagFileProcessorManager, file: DagFileInfo) -> bool:
    """Return whether a file failed slowly and recently, and has not changed since."""
    stat = self._file_stats.get(file)
    if not stat or not stat.import_errors or not stat.last_finish_time or (stat.last_duration or 0) < SLOW_SECONDS:
        return False
    since = (timezone.utcnow() - stat.last_finish_time).total_seconds()
    try:
        changed = file.absolute_path.stat().st_mtime > stat.last_finish_time.timestamp()
    except OSError:
        return False
    return since < min(REST_FACTOR * (stat.last_duration or 0), LONGEST_REST) and not changed


def prepare_file_queue(self: DagFileProcessorManager, **kwargs: Any) -> None:
    """Call the upstream method, then drop the files that rest."""
    _prepare_file_queue(self, **kwargs)
    for file in [file for file in self._file_queue if file not in self._callback_to_execute and is_resting(self, file)]:
        del self._file_queue[file]


def apply() -> None:
    """Report a parser's exit as its file's import error."""
    processor._parse_file = parse_file
    DagFileProcessorProcess.start = classmethod(start)
    DagFileProcessorProcess.is_ready = property(is_ready)
    DagFileProcessorProcess.close = close
    DagFileProcessorManager.handle_parsing_result = handle_parsing_result
    DagFileProcessorManager.persist_parsing_result = persist_parsing_result
    DagFileProcessorManager._kill_timed_out_processors = kill_timed_out_processors
    DagFileProcessorManager.prepare_file_queue = prepare_file_queue
