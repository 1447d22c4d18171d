"""A stub of Slack that stores messages and shows them on a page.

Alertmanager sends to it until a real webhook is set, so the complete path from a fault to a message works from the
start. It is also the dead man's switch until a real one is set. Tests make it fail as Slack does.

    POST   /services/…   Slack's incoming webhook: `ok`, or 400 `invalid_payload` or `no_text`, as from Slack
    GET    /messages     [{"received": unix seconds, "path": "/services/…", "payload": {…}}, …], oldest first
    DELETE /messages
    POST   /watchdog/…   the dead man's switch
    GET    /watchdog     {"last": unix seconds or null, "count": n}
    PUT    /fault        {"status": 500, "hang_seconds": 0, "times": 3, "path": "/services/"}: fail the next messages
    DELETE /fault
    GET    /health       ok
    GET    /             the newest messages, as an HTML page

Alertmanager's messages (alerting/alertmanager/templates/messages.tmpl) have one attachment, `attachments[0]`:

    title       "[FIRING] Page: <summary>", "[RESOLVED] Page: <summary>"; for several alerts their name and number
    title_link  the runbook of the first alert
    text        for each alert: summary (if there are several), description, start or duration, links
    fields      Alert, Severity, Team, Labels (common to the group): [{"title", "value", "short"}, …]
    color       danger, warning or #439fe0 while firing, good when resolved
    fallback    the title
"""

from __future__ import annotations

import html
import json
import os
import re
import signal
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Final, TypedDict

PORT: Final = 8025
FOLDER: Final = Path("/opt/airflow/artifacts")
"""A folder that the image's user can write; the stub has its own volume there."""
MAX_MESSAGES: Final = 500
"""The most stored messages; older ones are dropped."""
MAX_KEPT: Final = 4 * 1024**2
"""The most characters of all stored messages together."""
MAX_BODY: Final = 256 * 1024
SHOWN: Final = 50
MAX_HANG_SECONDS: Final = 600.0
READ_SECONDS: Final = 10.0
"""The time limit for a client to send its request."""
MARKUP: Final = re.compile(
    r"<(?P<address>https?://[^|>]+)\|(?P<label>[^>]+)>"
    r"|`(?P<code>[^`\n]+)`|(?<!\w)\*(?P<bold>[^\s*](?:[^*\n]*[^\s*])?)\*(?!\w)|(?P<text>.[^<`*]*)",
    re.DOTALL,
)


class Message(TypedDict):
    """One message; `received` is in seconds since the epoch."""

    received: float
    path: str
    payload: dict[str, Any]


@dataclass
class Fault:
    """An injected fault for the next messages.

    Attributes:
        status: The status code of the response; 200 only delays.
        hang_seconds: The delay of the response.
        times: The number of remaining messages.
        path: The prefix of the affected paths.
    """

    status: int
    hang_seconds: float
    times: int
    path: str


class InvalidError(ValueError):
    """A request is invalid; the message is the body of the response."""


def slack_payload(body: bytes) -> dict[str, Any]:
    """Return a message that Slack would accept.

    Raises:
        InvalidError: `invalid_payload` or `no_text`, Slack's own error codes.
    """
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidError("invalid_payload") from None
    if not isinstance(payload, dict):
        raise InvalidError("invalid_payload")
    attachments = payload.get("attachments", [])
    if not isinstance(attachments, list) or not all(isinstance(each, dict) for each in attachments):
        raise InvalidError("invalid_payload")
    if not (payload.get("text") or payload.get("blocks") or attachments):
        raise InvalidError("no_text")
    return payload


def parse_fault(body: bytes) -> Fault:
    """Return the fault in a request.

    Raises:
        InvalidError: A field is unknown or has an invalid value.
    """
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidError("cannot parse the fault: not JSON") from None
    if not isinstance(fields, dict) or not set(fields) <= {"status", "hang_seconds", "times", "path"}:
        raise InvalidError("cannot parse the fault: not an object with status, hang_seconds, times and path")
    status, hang = fields.get("status", 200), fields.get("hang_seconds", 0)
    times, path = fields.get("times", 1), fields.get("path", "/services/")
    if type(status) is not int or not 200 <= status <= 599:
        raise InvalidError("cannot set the fault: status must be 200 to 599")
    if type(hang) not in (int, float) or not 0 <= hang <= MAX_HANG_SECONDS:
        raise InvalidError(f"cannot set the fault: hang_seconds must be 0 to {MAX_HANG_SECONDS:.0f}")
    if type(times) is not int or times < 1:
        raise InvalidError("cannot set the fault: times must be 1 or more")
    if not isinstance(path, str):
        raise InvalidError("cannot set the fault: path must be a string")
    return Fault(status, float(hang), times, path)


@dataclass
class Store:
    """A thread-safe store of messages in memory and in a file of JSON lines.

    Attributes:
        file: The file that keeps messages over a restart.
    """

    file: Path
    _kept: deque[str] = field(default_factory=deque)
    _size: int = 0
    _lines: int = 0
    _pings: int = 0
    _last_ping: float | None = None
    _fault: Fault | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def load(self) -> None:
        """Load the messages of an earlier process; a partial line is skipped."""
        if not self.file.exists():
            return
        with self.file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    kept = json.loads(line)
                    message = Message(received=kept["received"], path=kept["path"], payload=kept["payload"])
                except (ValueError, KeyError, TypeError):
                    continue
                self._keep(json.dumps(message))
        self._rewrite()

    def add(self, path: str, payload: dict[str, Any]) -> None:
        """Store a message."""
        line = json.dumps(Message(received=time.time(), path=path, payload=payload))
        with self._lock:
            self._keep(line)
            self._lines += 1
            if self._lines > 2 * len(self._kept):
                self._rewrite()
                return
            with self.file.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    def messages(self) -> list[Message]:
        """Return the stored messages, the oldest first."""
        with self._lock:
            lines = list(self._kept)
        return [json.loads(line) for line in lines]

    def clear(self) -> None:
        """Delete all messages."""
        with self._lock:
            self._kept.clear()
            self._size = 0
            self._rewrite()

    def ping(self) -> None:
        """Record a ping of the dead man's switch."""
        with self._lock:
            self._pings += 1
            self._last_ping = time.time()

    def watchdog(self) -> dict[str, float | int | None]:
        """Return the time of the last ping of the dead man's switch, and the number of pings."""
        with self._lock:
            return {"last": self._last_ping, "count": self._pings}

    def set_fault(self, new: Fault | None) -> None:
        """Inject a fault for the next messages; None reverts it."""
        with self._lock:
            self._fault = new

    def take_fault(self, path: str) -> Fault | None:
        """Return the fault for a message to this path, and count it down."""
        with self._lock:
            fault = self._fault
            if fault is None or not path.startswith(fault.path):
                return None
            fault.times -= 1
            if fault.times == 0:
                self._fault = None
            return fault

    def _keep(self, line: str) -> None:
        self._kept.append(line)
        self._size += len(line)
        while len(self._kept) > MAX_MESSAGES or (self._size > MAX_KEPT and len(self._kept) > 1):
            self._size -= len(self._kept.popleft())

    def _rewrite(self) -> None:
        part = self.file.with_name(self.file.name + ".part")
        part.write_text("".join(line + "\n" for line in self._kept), encoding="utf-8")
        part.replace(self.file)
        self._lines = len(self._kept)


def page(messages: list[Message], watchdog: dict[str, float | int | None]) -> str:
    """Return the newest messages as HTML; their content is escaped."""
    rows = "".join(_row(message) for message in reversed(messages[-SHOWN:]))
    last = watchdog["last"]
    number = f"{len(messages)} message{'s' if len(messages) != 1 else ''}"
    ping = f"Last ping of the Watchdog: {_clock(last)}." if last else "No ping of the Watchdog yet."
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=10>"
        "<title>Slack stub</title><style>body{font:15px/1.4 sans-serif;margin:2em auto;max-width:52em}"
        "article{border-left:4px solid #999;padding:.2em 1em;margin:1em 0}.danger{border-color:#d33}"
        ".warning{border-color:#da2}.good{border-color:#3a5}pre{white-space:pre-wrap;font:inherit}small{color:#666}"
        "</style><h1>Messages to Slack</h1>"
        f"<p>{number} stored. {ping} To set a real webhook, run <code>./ops/stack slack</code>.</p>"
        f"{rows or '<p>No messages yet.</p>'}"
    )


def _row(message: Message) -> str:
    attachments: list[dict[str, Any]] = message["payload"].get("attachments") or [{}]
    attachment = attachments[0]
    title = attachment.get("title") or message["payload"].get("text") or "(no title)"
    colour = attachment.get("color", "")
    kind = colour if colour in ("danger", "warning", "good") else ""
    return (
        f'<article class="{kind}"><h3>{html.escape(str(title))}</h3>'
        f"<pre>{marked_up(str(attachment.get('text', '')))}</pre>"
        f"<small>{_clock(message['received'])} to {html.escape(message['path'])}</small></article>"
    )


def marked_up(text: str) -> str:
    """Convert Slack's markup of links, code and bold to HTML, and escape the rest.

    Source: https://api.slack.com/reference/surfaces/formatting
    """
    return "".join(_marked(match) for match in MARKUP.finditer(text))


def _marked(match: re.Match[str]) -> str:
    # In Slack's text only &, < and > are escaped.
    parts = {name: html.escape(html.unescape(part)) for name, part in match.groupdict().items() if part is not None}
    match parts:
        case {"address": address, "label": label}:
            return f'<a href="{address}">{label}</a>'
        case {"code": code}:
            return f"<code>{code}</code>"
        case {"bold": bold}:
            return f"<b>{bold}</b>"
        case _:
            return parts["text"]


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


class Handler(BaseHTTPRequestHandler):
    """Handles one request; the server sets the store."""

    timeout = READ_SECONDS
    server_version = "slack-stub"
    store: ClassVar[Store]
    stopping: ClassVar[threading.Event]

    def do_GET(self) -> None:
        """Serve the messages, the dead man's switch, the health check or the page."""
        match self.path:
            case "/health":
                self._respond(HTTPStatus.OK, "ok")
            case "/messages":
                self._respond_json(self.store.messages())
            case "/watchdog":
                self._respond_json(self.store.watchdog())
            case "/":
                shown = page(self.store.messages(), self.store.watchdog())
                self._respond(HTTPStatus.OK, shown, "text/html; charset=utf-8")
            case _:
                self._respond(HTTPStatus.NOT_FOUND, "not found")

    def do_POST(self) -> None:
        """Receive a message or a ping of the dead man's switch."""
        body = self._body()
        if body is None:
            return
        fault = self.store.take_fault(self.path)
        if fault:
            # The event ends the wait when the server stops.
            self.stopping.wait(fault.hang_seconds)
            if fault.status != HTTPStatus.OK:
                self._respond(fault.status, "rate_limited" if fault.status == HTTPStatus.TOO_MANY_REQUESTS else "fault")
                return
        if self.path.startswith("/watchdog"):
            self.store.ping()
            self._respond(HTTPStatus.OK, "ok")
        elif self.path.startswith("/services/"):
            try:
                self.store.add(self.path, slack_payload(body))
            except InvalidError as error:
                self._respond(HTTPStatus.BAD_REQUEST, str(error))
            else:
                self._respond(HTTPStatus.OK, "ok")
        else:
            self._respond(HTTPStatus.NOT_FOUND, "no_service")

    def do_PUT(self) -> None:
        """Inject a fault for the next messages."""
        body = self._body()
        if body is None:
            return
        if self.path != "/fault":
            self._respond(HTTPStatus.NOT_FOUND, "not found")
            return
        try:
            self.store.set_fault(parse_fault(body))
        except InvalidError as error:
            self._respond(HTTPStatus.BAD_REQUEST, str(error))
        else:
            self._respond(HTTPStatus.OK, "ok")

    def do_DELETE(self) -> None:
        """Delete all messages, or revert the fault."""
        match self.path:
            case "/messages":
                self.store.clear()
            case "/fault":
                self.store.set_fault(None)
            case _:
                self._respond(HTTPStatus.NOT_FOUND, "not found")
                return
        self._respond(HTTPStatus.OK, "ok")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log no requests: a health check comes every few seconds."""

    def _body(self) -> bytes | None:
        """Return the request's body; None if the request was refused."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            self._respond(HTTPStatus.LENGTH_REQUIRED, "no Content-Length")
            return None
        if int(length) > MAX_BODY:
            self._respond(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too large")
            return None
        return self.rfile.read(int(length))

    def _respond_json(self, content: object) -> None:
        self._respond(HTTPStatus.OK, json.dumps(content), "application/json")

    def _respond(self, status: int, text: str, kind: str = "text/plain; charset=utf-8") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(body)


def server(folder: Path, address: tuple[str, int]) -> ThreadingHTTPServer:
    """Return the stub's server with the messages that the folder holds."""
    store = Store(folder / "messages.jsonl")
    store.load()
    handler = type("BoundHandler", (Handler,), {"store": store, "stopping": threading.Event()})
    stub = ThreadingHTTPServer(address, handler)
    stub.daemon_threads = True
    return stub


def main() -> None:
    """Serve until SIGTERM."""
    folder = Path(os.environ.get("SLACK_STUB_FOLDER", str(FOLDER)))
    serving = server(folder, ("0.0.0.0", PORT))  # noqa: S104
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=serving.shutdown).start())
    sys.stderr.write(f"slack stub: listening on port {PORT}, messages in {folder}\n")
    with serving:
        serving.serve_forever(poll_interval=0.2)


if __name__ == "__main__":
    main()
