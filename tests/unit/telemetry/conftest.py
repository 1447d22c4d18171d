"""A fake exporter: a UDP socket on loopback."""

from __future__ import annotations

import socket

import pytest


class Exporter:
    """A socket that receives the client's packets like statsd_exporter."""

    def __init__(self, address: str = "127.0.0.1", port: int = 0) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(10)
        self.socket.bind((address, port))
        self.host, self.port = self.socket.getsockname()

    def packet(self) -> str:
        return self.socket.recv(65535).decode()

    def is_silent(self) -> bool:
        """Return whether no packet is queued; on loopback a packet has arrived when sendto() returns."""
        self.socket.setblocking(False)
        try:
            self.socket.recv(65535)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(10)
        return False


@pytest.fixture
def open_exporter():
    opened = []

    def exporter(*args):
        opened.append(Exporter(*args))
        return opened[-1]

    yield exporter
    for each in opened:
        each.socket.close()


@pytest.fixture
def exporter(open_exporter):
    return open_exporter()


@pytest.fixture(autouse=True)
def own_surroundings(tmp_path, monkeypatch):
    """Act as a scheduler on the host `0123456789ab` that shares no lookups with other tests."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("AIRFLOW_HA_COMPONENT", "scheduler")
    monkeypatch.setattr(socket, "gethostname", lambda: "0123456789ab")
