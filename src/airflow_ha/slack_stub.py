"""A small Slack of the stack's own: keeps the messages that it is sent, and shows them.

Until a real webhook is set, Alertmanager sends here, so that the whole path from a fault to a message can be seen at
once. It also is the dead man's switch until a real one is set, and tests make it fail as Slack does.

    POST   /services/…   Slack's incoming webhook: `ok`, or 400 `invalid_payload` or `no_text`, as Slack answers
    GET    /messages     [{"received": unix seconds, "path": "/services/…", "payload": {…}}, …], oldest first
    DELETE /messages
    POST   /watchdog/…   the dead man's switch
    GET    /watchdog     {"last": unix seconds or null, "count": n}
    PUT    /fault        {"status": 500, "hang_seconds": 0, "times": 3, "path": "/services/"}: the next messages fail so
    DELETE /fault
    GET    /health       ok
    GET    /             the newest messages, as a page

What Alertmanager sends (alerting/alertmanager/templates/slack.tmpl) is one attachment a message, `attachments[0]`:

    title       "[FIRING] Page: <summary>", "[RESOLVED] Page: <summary>"; of several alerts the name, and how many
    title_link  the runbook of the first alert
    text        for each alert: summary (where there are several), description, since when or how long, links
    fields      Alert, Severity, Team, Labels (those that the group has in common): [{"title", "value", "short"}, …]
    color       danger, warning or #439fe0 while it fires, good afterwards
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
"""A folder of the image that its user may write; the stub has its own volume there."""
MAX_MESSAGES: Final = 500
"""How many are kept; older ones are forgotten."""
MAX_KEPT: Final = 4 * 1024**2
"""Characters of all kept messages together."""
MAX_BODY: Final = 256 * 1024
SHOWN: Final = 50
MAX_HANG_SECONDS: Final = 600.0
READ_SECONDS: Final = 10.0
"""How long a client may take over its request."""
MARKUP: Final = re.compile(
    r"<(?P<address>https?://[^|>]+)\|(?P<label>[^>]+)>"
    r"|`(?P<code>[^`\n]+)`|(?<!\w)\*(?P<bold>[^\s*](?:[^*\n]*[^\s*])?)\*(?!\w)|(?P<text>.[^<`*]*)",
    re.DOTALL,
)


class Message(TypedDict):
    """One message; `received` in seconds since the epoch."""

    received: float
    path: str
    payload: dict[str, Any]


@dataclass
class Fault:
    """How the next messages fail.

    Attributes:
        status: The answer; 200 only delays.
        hang_seconds: How long the answer takes.
        times: How many messages more.
        path: Only those whose path begins with this.
    """

    status: int
    hang_seconds: float
    times: int
    path: str


class InvalidError(ValueError):
    """What was sent makes no sense; the message is what Slack, or this stub, says to it."""


def slack_payload(body: bytes) -> dict[str, Any]:
    """A message as Slack would take it.

    Raises:
        InvalidError: `invalid_payload` or `no_text`, Slack's own words for it.
    """
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidError("invalid_payload") from None
    if not isinstance(payload, dict):
        raise InvalidError("invalid_payload")
    attachments = payload.get("attachments", [])
    if not isinstance(attachments, list) or not all(isinstance(one, dict) for one in attachments):
        raise InvalidError("invalid_payload")
    if not (payload.get("text") or payload.get("blocks") or attachments):
        raise InvalidError("no_text")
    return payload


def fault(body: bytes) -> Fault:
    """A fault as tests ask for it.

    Raises:
        InvalidError: It has an unknown field, or one that makes no sense.
    """
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidError("not JSON") from None
    if not isinstance(asked, dict) or not set(asked) <= {"status", "hang_seconds", "times", "path"}:
        raise InvalidError("an object with status, hang_seconds, times and path")
    status, hang = asked.get("status", 200), asked.get("hang_seconds", 0)
    times, path = asked.get("times", 1), asked.get("path", "/services/")
    if type(status) is not int or not 200 <= status <= 599:
        raise InvalidError("status is 200 to 599")
    if type(hang) not in (int, float) or not 0 <= hang <= MAX_HANG_SECONDS:
        raise InvalidError(f"hang_seconds is 0 to {MAX_HANG_SECONDS:.0f}")
    if type(times) is not int or times < 1:
        raise InvalidError("times is 1 or more")
    if not isinstance(path, str):
        raise InvalidError("path is the beginning of one")
    return Fault(status, float(hang), times, path)


@dataclass
class Store:
    """The messages, in memory and in a file of JSON lines; used by several threads.

    Attributes:
        file: Where they outlive a restart.
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
        """Reads what an earlier process kept; a line that it could not finish is left out."""
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
        """Keeps a message."""
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
        """What is kept, oldest first."""
        with self._lock:
            lines = list(self._kept)
        return [json.loads(line) for line in lines]

    def clear(self) -> None:
        """Forgets all messages."""
        with self._lock:
            self._kept.clear()
            self._size = 0
            self._rewrite()

    def ping(self) -> None:
        """The dead man's switch was pressed."""
        with self._lock:
            self._pings += 1
            self._last_ping = time.time()

    def watchdog(self) -> dict[str, float | int | None]:
        """When the dead man's switch was pressed last, and how often."""
        with self._lock:
            return {"last": self._last_ping, "count": self._pings}

    def set_fault(self, new: Fault | None) -> None:
        """Makes the next messages fail; None ends that."""
        with self._lock:
            self._fault = new

    def take_fault(self, path: str) -> Fault | None:
        """The fault that a message to this path meets, which is one less from now on."""
        with self._lock:
            found = self._fault
            if found is None or not path.startswith(found.path):
                return None
            found.times -= 1
            if found.times == 0:
                self._fault = None
            return found

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
    """The newest messages as HTML; whatever is in them is text."""
    rows = "".join(_row(message) for message in reversed(messages[-SHOWN:]))
    last = watchdog["last"]
    heard = f"The Watchdog was last heard at {_clock(last)}." if last else "The Watchdog was not heard yet."
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=10>"
        "<title>Slack stub</title><style>body{font:15px/1.4 sans-serif;margin:2em auto;max-width:52em}"
        "article{border-left:4px solid #999;padding:.2em 1em;margin:1em 0}.danger{border-color:#d33}"
        ".warning{border-color:#da2}.good{border-color:#3a5}pre{white-space:pre-wrap;font:inherit}small{color:#666}"
        "</style><h1>What Slack would have been sent</h1>"
        f"<p>{len(messages)} messages are kept. {heard} Set a real webhook: <code>./ops/stack slack</code></p>"
        f"{rows or '<p>No message yet: nothing is wrong.</p>'}"
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
    """Slack's markup as HTML: links, code, bold; all else is text.

    Source: https://api.slack.com/reference/surfaces/formatting
    """
    return "".join(_marked(match) for match in MARKUP.finditer(text))


def _marked(match: re.Match[str]) -> str:
    # Slack's text has &, < and > escaped already, and nothing else.
    found = {name: html.escape(html.unescape(part)) for name, part in match.groupdict().items() if part is not None}
    match found:
        case {"address": address, "label": label}:
            return f'<a href="{address}">{label}</a>'
        case {"code": code}:
            return f"<code>{code}</code>"
        case {"bold": bold}:
            return f"<b>{bold}</b>"
        case _:
            return found["text"]


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


class Handler(BaseHTTPRequestHandler):
    """One request; the store is the server's."""

    timeout = READ_SECONDS
    server_version = "slack-stub"
    store: ClassVar[Store]
    stopping: ClassVar[threading.Event]

    def do_GET(self) -> None:
        """Messages, the dead man's switch, health, the page."""
        match self.path:
            case "/health":
                self._answer(HTTPStatus.OK, "ok")
            case "/messages":
                self._answer_json(self.store.messages())
            case "/watchdog":
                self._answer_json(self.store.watchdog())
            case "/":
                shown = page(self.store.messages(), self.store.watchdog())
                self._answer(HTTPStatus.OK, shown, "text/html; charset=utf-8")
            case _:
                self._answer(HTTPStatus.NOT_FOUND, "no such page")

    def do_POST(self) -> None:
        """A message, or the dead man's switch."""
        body = self._body()
        if body is None:
            return
        met = self.store.take_fault(self.path)
        if met:
            # Ends with the server, so that a hanging answer does not hold it up.
            self.stopping.wait(met.hang_seconds)
            if met.status != HTTPStatus.OK:
                self._answer(met.status, "rate_limited" if met.status == HTTPStatus.TOO_MANY_REQUESTS else "fault")
                return
        if self.path.startswith("/watchdog"):
            self.store.ping()
            self._answer(HTTPStatus.OK, "ok")
        elif self.path.startswith("/services/"):
            try:
                self.store.add(self.path, slack_payload(body))
            except InvalidError as error:
                self._answer(HTTPStatus.BAD_REQUEST, str(error))
            else:
                self._answer(HTTPStatus.OK, "ok")
        else:
            self._answer(HTTPStatus.NOT_FOUND, "no_service")

    def do_PUT(self) -> None:
        """A fault for the next messages."""
        body = self._body()
        if body is None:
            return
        if self.path != "/fault":
            self._answer(HTTPStatus.NOT_FOUND, "no such page")
            return
        try:
            self.store.set_fault(fault(body))
        except InvalidError as error:
            self._answer(HTTPStatus.BAD_REQUEST, str(error))
        else:
            self._answer(HTTPStatus.OK, "ok")

    def do_DELETE(self) -> None:
        """No messages, or no fault, any more."""
        match self.path:
            case "/messages":
                self.store.clear()
            case "/fault":
                self.store.set_fault(None)
            case _:
                self._answer(HTTPStatus.NOT_FOUND, "no such page")
                return
        self._answer(HTTPStatus.OK, "ok")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Says nothing of a request that went well: a health check every few seconds is no news."""

    def _body(self) -> bytes | None:
        """The request's body; None when it was refused."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            self._answer(HTTPStatus.LENGTH_REQUIRED, "no Content-Length")
            return None
        if int(length) > MAX_BODY:
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too large")
            return None
        return self.rfile.read(int(length))

    def _answer_json(self, content: object) -> None:
        self._answer(HTTPStatus.OK, json.dumps(content), "application/json")

    def _answer(self, status: int, text: str, kind: str = "text/plain; charset=utf-8") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(body)


def server(folder: Path, address: tuple[str, int]) -> ThreadingHTTPServer:
    """The stub, ready to serve; what an earlier one kept in the folder is there again."""
    store = Store(folder / "messages.jsonl")
    store.load()
    handler = type("BoundHandler", (Handler,), {"store": store, "stopping": threading.Event()})
    made = ThreadingHTTPServer(address, handler)
    made.daemon_threads = True
    return made


def main() -> None:
    """Serves until it is told to stop."""
    folder = Path(os.environ.get("SLACK_STUB_FOLDER", str(FOLDER)))
    serving = server(folder, ("0.0.0.0", PORT))  # noqa: S104
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=serving.shutdown).start())
    sys.stderr.write(f"slack stub: listening on port {PORT}, messages in {folder}\n")
    with serving:
        serving.serve_forever(poll_interval=0.2)


if __name__ == "__main__":
    main()
