"""compose/health/check-http.sh is healthy only if every target answers with 200."""

from __future__ import annotations

import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.unit.compose.model import COMPOSE


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/a/health" else 503)
        self.end_headers()
        self.wfile.write(b"refused log-ins: 2 addresses, 0 users\nx\n" if self.path == "/a/health" else b"ok")

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def port():
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize(
    ("paths", "is_healthy"), [(["a/health"], True), (["a/health", "b"], False), (["b", "a/health"], False)]
)
def test_every_target_must_answer_with_200(port, paths, is_healthy):
    targets = [f"{port}/{path}" for path in paths]
    result = subprocess.run(["bash", COMPOSE / "health/check-http.sh", *targets], check=False)
    assert (result.returncode == 0) is is_healthy


def test_the_line_about_refused_log_ins_is_printed(port):
    check = ["bash", COMPOSE / "health/check-http.sh", f"{port}/a/health"]
    assert subprocess.check_output(check, text=True) == "refused log-ins: 2 addresses, 0 users\n"


def test_a_closed_port_is_unhealthy():
    result = subprocess.run(
        ["bash", COMPOSE / "health/check-http.sh", "1/health"], stderr=subprocess.DEVNULL, check=False
    )
    assert result.returncode == 1
