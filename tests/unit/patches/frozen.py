"""Fake servers that stop answering when they are frozen, for clients of Postgres, Redis and Sentinel."""

from __future__ import annotations

import socket
import struct
import threading
from typing import Any, Final

PARAMETERS: Final = {
    "server_version": "17.0",
    "server_encoding": "UTF8",
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "integer_datetimes": "on",
    "standard_conforming_strings": "on",
}


class Server:
    """A server with one thread per connection. When frozen it neither reads nor answers, but its kernel still does.

    Attributes:
        port: Port of the server.
        is_frozen: Event that freezes the server.
    """

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.is_frozen = threading.Event()
        self._accepted: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed
                return
            self._accepted.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            try:
                self.serve(connection, stream)
            except OSError:  # closed by the client, or by `close`
                return

    def serve(self, connection: socket.socket, stream: Any) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self._socket.close()
        for connection in self._accepted:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # closed
                continue


class Postgres(Server):
    """A server that accepts every login and returns `1`: https://www.postgresql.org/docs/17/protocol.html."""

    def serve(self, connection: socket.socket, stream: Any) -> None:
        while True:
            length, code = struct.unpack("!II", stream.read(8))
            stream.read(length - 8)
            if code not in (80877103, 80877104):  # SSLRequest, GSSENCRequest
                break
            connection.sendall(b"N")
        settings = (message(b"S", f"{name}\0{value}\0".encode()) for name, value in PARAMETERS.items())
        connection.sendall(message(b"R", struct.pack("!I", 0)) + b"".join(settings) + message(b"Z", b"I"))
        state, query = b"I", b""
        while (kind := stream.read(1)) and kind != b"X":
            content = stream.read(struct.unpack("!I", stream.read(4))[0] - 4)
            if self.is_frozen.is_set():
                continue
            if kind in b"QP":  # simple query, or extended query protocol
                query = content.strip(b"\0").split(b"\0")[0]
            columns, values, command = rows(query)
            state = {b"BEGIN": b"T", b"COMMIT": b"I", b"ROLLBACK": b"I"}.get(command, state)
            done = message(b"C", command + b"\0")
            answers = {b"P": message(b"1", b""), b"B": message(b"2", b""), b"E": values + done}
            answers |= {b"D": columns or message(b"n", b""), b"S": message(b"Z", state)}
            answers |= {b"Q": columns + values + done + message(b"Z", state)}
            connection.sendall(answers.get(kind, b""))


def rows(query: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the columns and rows of a query's answer, and its command."""
    command = query.split()[0].rstrip(b";").upper()
    if command not in (b"SELECT", b"SHOW"):
        return b"", b"", command
    columns = message(b"T", struct.pack("!H", 1) + b"value\0" + struct.pack("!IHIHIH", 0, 0, 25, 65535, 0, 0))
    value = b"PostgreSQL 17.0" if b"version" in query else b"1"
    has_row = b"pg_type" not in query
    return columns, message(b"D", struct.pack("!HI", 1, len(value)) + value) if has_row else b"", command


def message(kind: bytes, content: bytes) -> bytes:
    """Return a Postgres protocol message."""
    return kind + struct.pack("!I", len(content) + 4) + content


class Redis(Server):
    """A Redis, or a Sentinel with the primary `airflow`: https://redis.io/docs/latest/develop/reference/protocol-spec/.

    Attributes:
        primary: Name and port of the primary that this Sentinel reports.
    """

    primary = ("", 0)

    def serve(self, connection: socket.socket, stream: Any) -> None:
        while first := stream.readline():
            words = []
            for _ in range(int(first[1:])):
                stream.readline()
                words.append(stream.readline().strip().upper())
            if words[0] == b"BRPOP" or self.is_frozen.is_set():
                continue
            connection.sendall(self.masters() if words[0] == b"SENTINEL" else b"+OK\r\n")

    def masters(self) -> bytes:
        host, port = self.primary
        state = ["name", "airflow", "ip", host, "port", str(port), "flags", "master", "num-other-sentinels", "0"]
        text = "".join(f"${len(field)}\r\n{field}\r\n" for field in state)
        return f"*1\r\n*{len(state)}\r\n{text}".encode()
