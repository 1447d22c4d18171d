"""What both backup services share: running an engine, the loop, and the page for Prometheus and the health check.

GET /metrics    the service's metrics, in Prometheus' text format
GET /problems   why the last backup in a storage failed, by storage, in JSON
GET /health     200 while the loop runs or an engine works; 503 otherwise
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PORT: Final = 9854
STATE: Final = Path("/var/lib/backup/state/database.json")
"""The backups of the database in each storage: `{"labels": {"local": ["20261129-201659F", …]}}`, the oldest first."""
STORAGES: Final = {"local": 1, "s3": 2}
"""pgBackRest's number of the repository in each storage, as in ops/backup_storage.py."""
TICK_SECONDS: Final = 15.0
STALLED_SECONDS: Final = 120.0
LAST_LINES: Final = 4
BACKUP_SECONDS: Final = 86400.0
QUERY_SECONDS: Final = 60.0
"""Time limits, such as for a repository whose disk hangs: of a backup, and of a question."""
RETRY_SECONDS: Final = 300.0
"""The wait after a failed backup: its cause, such as a full disk, rarely ends sooner."""


class EngineError(Exception):
    """An engine (pgBackRest, restic, psql) failed; the message has its reason."""


@dataclass
class Service:
    """The state that the page shows.

    Attributes:
        metrics: The value of each metric, by its name with labels.
        problems: Why nothing can be backed up, by storage.
        ticked: When the loop last completed, on the monotonic clock.
        engines: How many engines work now.
        lock: Held while `engines` changes.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    ticked: float = field(default_factory=time.monotonic)
    engines: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def is_alive(self) -> bool:
        """Return whether the loop completes, or waits for an engine."""
        return self.engines > 0 or time.monotonic() - self.ticked < STALLED_SECONDS

    def run(
        self,
        *command: str,
        allowed: tuple[int, ...] = (0,),
        environment: Mapping[str, str] | None = None,
        seconds: float = BACKUP_SECONDS,
    ) -> subprocess.CompletedProcess[str]:
        """Run an engine to its end.

        Raises:
            EngineError: It exited with another code than the allowed ones, or ran for longer than `seconds`.
        """
        with self.lock:
            self.engines += 1
        try:
            result = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                env={**os.environ, **(environment or {})},
                timeout=seconds,
            )
        except subprocess.TimeoutExpired as error:
            raise EngineError(f"{command[0]} did not end within {seconds:.0f} s") from error
        finally:
            with self.lock:
                self.engines -= 1
            self.ticked = time.monotonic()
        if result.returncode not in allowed:
            text = reason(result.stderr + result.stdout)
            raise EngineError(f"{command[0]} failed (exit {result.returncode}): {text}")
        return result


def reason(output: str) -> str:
    """Return why an engine failed, on one line: what follows pgBackRest's `ERROR:`, otherwise the last lines."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    start = next((number for number, line in enumerate(lines) if "ERROR:" in line), max(0, len(lines) - LAST_LINES))
    return " | ".join(lines[start : start + LAST_LINES]) or "no output"


def series(name: str, **labels: str) -> str:
    """Return the name of a metric with its labels."""
    listed = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return f"{name}{{{listed}}}"


def log(line: str) -> None:
    """Print a line to the container's log."""
    print(line, flush=True)


def exposition(metrics: Mapping[str, float]) -> str:
    """Return metrics in Prometheus' text format, in the order of their names."""
    return "".join(f"{name} {value}\n" for name, value in sorted(metrics.items()))


def existing_labels(storage: str, path: Path = STATE) -> list[str]:
    """Return the labels of the database's backups in a storage, the oldest first; empty before the first one."""
    try:
        labels: list[str] = json.loads(path.read_text(encoding="utf-8"))["labels"][storage]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []
    return labels


def write_labels(labels: Mapping[str, list[str]], path: Path = STATE) -> None:
    """Write the labels of the database's backups in each storage for the service of files, if they changed.

    Raises:
        EngineError: They cannot be written.
    """
    text = json.dumps({"labels": labels})
    try:
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return
        path.parent.mkdir(mode=0o755, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise EngineError(f"cannot write {path}: {error.strerror}") from error


def serve(service: Service) -> None:
    """Serve the page in threads: to the health check, and on the network `monitoring`."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                self.answer(HTTPStatus.OK, exposition(service.metrics))
            elif self.path == "/problems":
                self.answer(HTTPStatus.OK, json.dumps(service.problems))
            elif self.path == "/health":
                self.answer(HTTPStatus.OK if service.is_alive() else HTTPStatus.SERVICE_UNAVAILABLE, "")
            else:
                self.answer(HTTPStatus.NOT_FOUND, "")

        def answer(self, status: HTTPStatus, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
            pass

    for address in ("127.0.0.1", os.environ["METRICS_ADDRESS"]):
        server = ThreadingHTTPServer((address, PORT), Page)
        threading.Thread(target=server.serve_forever, daemon=True).start()


def loop(service: Service, tick: Callable[[], None]) -> None:
    """Serve the page and call `tick` every TICK_SECONDS, until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    serve(service)
    while True:
        try:
            tick()
        except EngineError as error:
            log(f"error: {error}")
        service.ticked = time.monotonic()
        time.sleep(TICK_SECONDS)
