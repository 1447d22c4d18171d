"""A DAG file that ends its parser's process, or never ends, becomes an import error, and delays no other file.

Problem: when the process that parses a file is killed, exits or exceeds `[dag_processor] dag_file_processor_timeout`,
  nothing is written: the file's DAGs stay as they were, and neither UI nor API shows why. So it is when the database
  refuses what a file holds. A slow failing file is parsed again every 30 s, and a process that a file leaves behind
  keeps its slot.
Patch: the exit code, signal, memory limit or time-out is the file's import error. The parser is the kernel's first
  choice when memory runs out, and has a process group of its own. A slow failing file rests until it is changed, or for
  four times as long as it took. A parser that waited for a processor rather than ran is no error of its file.
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
from airflow_ha.task_process.process_exit import exit_reason, oom_kills, prefer_as_oom_target

if TYPE_CHECKING:
    from airflow.dag_processing.manager import DagFileInfo

log = logging.getLogger(__name__)

SLOW_SECONDS: Final = 5.0
"""A failing file that takes longer than this rests."""
REST_FACTOR: Final = 4
LONGEST_REST: Final = 180.0
"""Seconds: less than the alert AirflowDagProcessingSlow allows between two parses (300), with the parse itself."""
STARVED_SECONDS: Final = 4.0
"""Of CPU time: a runnable process that has had less at its time-out has been starved, not stuck."""
DRAIN_SECONDS: Final = 2.0
"""How long what a dead parser has written is waited for, while a process that it left behind holds its sockets."""
ERROR_CHARACTERS: Final = 100_000

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
"""By the parser's process id, how many processes the kernel had killed for memory when it was started."""

# ---- the parser

_request: DagFileParseRequest | None = None
"""What this process was asked to parse."""


def parse_file(msg: DagFileParseRequest, *args: Any) -> DagFileParsingResult | None:
    """As upstream's; what was asked is known to who handles its failure."""
    global _request
    _request = msg
    result: DagFileParsingResult | None = _parse_file(msg, *args)
    return result


def parse_file_entrypoint() -> None:
    """As upstream's, in a process that ends at a fatal signal, and that the kernel takes before its parent."""
    prefer_as_oom_target()
    end_at_fatal_signals()
    try:
        _parse_file_entrypoint()
    except Exception as error:  # such as a result that cannot be sent
        if _request is None or _request.callback_requests:
            raise
        log.exception("Cannot parse %s", _request.file)
        reason = storable(f"What this file defines cannot be sent: {type(error).__name__}: {error}")
        rel_path = os.path.relpath(_request.file, _request.bundle_path)
        task_runner.SUPERVISOR_COMMS.send(
            DagFileParsingResult(fileloc=_request.file, serialized_dags=[], import_errors={rel_path: reason})
        )


def start(cls: type[DagFileProcessorProcess], /, **kwargs: Any) -> DagFileProcessorProcess:
    """As upstream's, in a process group of its own: a file that signals its group does not signal the manager."""
    kwargs.setdefault("target", parse_file_entrypoint)
    before = oom_kills()
    process: DagFileProcessorProcess = _start(cls, **kwargs, new_process_group=True)
    _oom_kills_before[process.pid] = before
    return process


def is_ready(self: DagFileProcessorProcess) -> bool:
    """As upstream's, and when the process has ended but one that it left behind holds its sockets."""
    ready: bool = _is_ready(self)
    ended = self._process_exit_monotonic
    return ready or (ended is not None and time.monotonic() - ended > DRAIN_SECONDS)


def close(self: DagFileProcessorProcess) -> None:
    """As upstream's; ends what the file has left behind in its process group."""
    _oom_kills_before.pop(self.pid, None)
    if self._new_process_group and self.pid != os.getpgid(0):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
    _close(self)


# ---- the manager


def storable(text: str) -> str:
    """Return the text with what Postgres and UTF-8 refuse escaped, and its middle left out where it is long."""
    if len(text) > ERROR_CHARACTERS:
        half = ERROR_CHARACTERS // 2
        text = f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def failure(file: DagFileInfo, reason: str) -> DagFileParsingResult:
    """Return the result of a file that has none, as upstream writes one of a file that raised an error."""
    return DagFileParsingResult(
        fileloc=str(file.absolute_path), serialized_dags=[], import_errors={str(file.rel_path): reason}
    )


def handle_parsing_result(
    self: DagFileProcessorManager, file: DagFileInfo, proc: DagFileProcessorProcess, **kwargs: Any
) -> None:
    """As upstream's; a parser that ended without a result has failed."""
    if proc.parsing_result is None and not proc.had_callbacks:
        reason = exit_reason(proc._exit_code, _oom_kills_before.get(proc.pid, 0))
        log.error("The process that parsed %s %s", file.rel_path, reason)
        proc.parsing_result = failure(
            file, f"The process that parsed this file {reason}, before it had read the file to its end."
        )
    _handle_parsing_result(self, file, proc, **kwargs)


def persist_parsing_result(self: DagFileProcessorManager, **kwargs: Any) -> None:
    """As upstream's; what the database refuses is the file's import error, as are texts that it would refuse."""
    result: DagFileParsingResult = kwargs["parsing_result"]
    if result.import_errors:
        result.import_errors = {storable(file): storable(text) for file, text in result.import_errors.items()}
    try:
        _persist_parsing_result(self, **kwargs)
    except OperationalError:
        raise
    except Exception as error:
        if kwargs["relative_fileloc"] is None:
            raise
        log.exception("Cannot store the DAGs of %s", kwargs["relative_fileloc"])
        kwargs["session"].rollback()
        reason = storable(f"The DAGs of this file cannot be stored: {type(error).__name__}: {str(error)[:2000]}")
        refused = DagFileParsingResult(
            fileloc=result.fileloc, serialized_dags=[], import_errors={kwargs["relative_fileloc"]: reason}
        )
        _persist_parsing_result(self, **{**kwargs, "parsing_result": refused})


def is_starved(pid: int) -> bool:
    """Return whether a process wants a processor and has had little of one."""
    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        return process.status() == psutil.STATUS_RUNNING and times.user + times.system < STARVED_SECONDS
    except psutil.Error:
        return False


def kill_timed_out_processors(self: DagFileProcessorManager) -> None:
    """As upstream's; a file whose parser was killed has failed, unless the parser had its result already."""
    now = time.monotonic()
    overdue = {file: proc for file, proc in self._processors.items() if now - proc.start_time > self.processor_timeout}
    starved = {file for file, proc in overdue.items() if is_starved(proc.pid)}
    _kill_timed_out_processors(self)
    for file, proc in overdue.items():
        if file in self._processors or proc.had_callbacks:
            continue
        if file in starved and not proc.parsing_result:
            self._file_stats[file].last_duration = 0.0  # it need not rest
            continue
        proc.parsing_result = proc.parsing_result or failure(
            file,
            f"The process that parsed this file was killed after {self.processor_timeout:.0f} s "
            "([dag_processor] dag_file_processor_timeout).",
        )
        with create_session() as session:
            _handle_parsing_result(self, file, proc, session=session)


def rests(self: DagFileProcessorManager, file: DagFileInfo) -> bool:
    """Return whether a file failed after long work, not long ago, and has not been changed since."""
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
    """As upstream's, without the files that rest."""
    _prepare_file_queue(self, **kwargs)
    for file in [file for file in self._file_queue if file not in self._callback_to_execute and rests(self, file)]:
        del self._file_queue[file]


def apply() -> None:
    """Report how a file's parser ended as its import error."""
    processor._parse_file = parse_file
    DagFileProcessorProcess.start = classmethod(start)
    DagFileProcessorProcess.is_ready = property(is_ready)
    DagFileProcessorProcess.close = close
    DagFileProcessorManager.handle_parsing_result = handle_parsing_result
    DagFileProcessorManager.persist_parsing_result = persist_parsing_result
    DagFileProcessorManager._kill_timed_out_processors = kill_timed_out_processors
    DagFileProcessorManager.prepare_file_queue = prepare_file_queue
