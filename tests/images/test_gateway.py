"""The gateway's own configuration in front of servers that count requests, and end connections on some paths."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import pytest

from tests.docker_session import session_name
from tests.images.conftest import ROOT, docker

SERVERS = ("api-server", "execution-api")
SERVER = """
import http.server, threading, time
hits, running, most = {}, {}, {}
lock = threading.Lock()
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        path = self.path.split("?")[0]
        with lock:
            hits[path] = hits.get(path, 0) + 1
            running[path] = running.get(path, 0) + 1
            most[path] = max(most.get(path, 0), running[path])
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "slow" in path:
            time.sleep(0.5)
        with lock:
            running[path] -= 1
        if "dies" in path:
            self.close_connection = True
            return
        body = repr((hits, most)).encode() if path.endswith("/counted") else b"{}"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_PUT = do_PATCH = do_GET
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 200
Server(("", 8080), Handler).serve_forever()
"""
LIMITS = {"XCOM_LIMIT": "1m", "REQUEST_LIMIT": "256k"}
SIDES = [
    (8080, "/api/v2/anything", 256_000),
    (8081, "/execution/anything", 256_000),
    (8081, "/execution/xcoms/anything", 1_000_000),
]


class Gateway:
    """The gateway, with two servers of each kind behind it."""

    def __init__(self, name: str, servers: dict[str, list[str]]) -> None:
        self.servers = servers
        self.address = {port: docker("port", name, str(port)).output.strip().rsplit(":", 1)[1] for port in (8080, 8081)}

    def client(self, port: int = 8080) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.address[port]}", timeout=20)

    def get_without_answer(self, kind: str, path: str) -> None:
        """GET a path that ends the server's connection; an answer is 502, or none on a reused connection."""
        with self.client(8080 if kind == "api-server" else 8081) as client, suppress(httpx.RemoteProtocolError):
            assert client.get(path).status_code == 502

    def counted(self, kind: str, path: str) -> tuple[int, int]:
        """Return the requests of a path to servers of a kind, and the most at once at a single server."""
        total, most = 0, 0
        for server in self.servers[kind]:
            ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8080/counted').read().decode())"
            hits, at_once = eval(docker("exec", server, "python3", "-c", ask).output)  # noqa: S307 (our own server)
            total, most = total + hits.get(path, 0), max(most, at_once.get(path, 0))
        return total, most


@pytest.fixture(scope="module")
def gateway(images) -> Iterator[Gateway]:
    name = f"{session_name()}-{uuid.uuid4().hex[:8]}"
    started = [name]
    assert docker("network", "create", name).status == 0
    try:
        servers: dict[str, list[str]] = {}
        for kind in SERVERS:
            for number in (1, 2):
                servers.setdefault(kind, []).append(f"{name}-{kind}-{number}")
                started.append(servers[kind][-1])
                run("--network", name, "--name", started[-1], "--network-alias", kind, "--entrypoint", "python3",
                    images["AIRFLOW_IMAGE"].reference, "-c", SERVER)  # fmt: skip
        run(
            *("--network", name, "--name", name, "--user", "99:99", "--tmpfs", "/tmp", "--publish", "127.0.0.1::8080"),
            *("--publish", "127.0.0.1::8081", "--entrypoint", "haproxy"),
            *(f"--env={key}={value}" for key, value in LIMITS.items()),
            f"--volume={ROOT}/compose/gateway/haproxy.cfg:/usr/local/etc/haproxy/haproxy.cfg:ro",
            *(images["GATEWAY_IMAGE"].reference, "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"),
        )
        running = Gateway(name, servers)
        wait_until_served(running)
        yield running
    finally:
        docker("rm", "--force", "--volumes", *started)
        docker("network", "rm", name)


def run(*arguments: str) -> None:
    answer = docker("run", "--detach", *arguments)
    assert answer.status == 0, answer.output


def wait_until_served(gateway: Gateway) -> None:
    """Wait until every backend has a server: HAProxy checks those of large requests every 3 s."""
    paths = [(8080, "/x"), (8080, "/logs/x"), (8080, "/logs/x?full_content=true"), (8081, "/execution/x")]
    paths += [(8080, "/dagSources/x"), (8081, "/execution/xcoms/x")]
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if all(gateway.client(port).get(path).status_code == 200 for port, path in paths):
                return
        time.sleep(0.3)
    raise AssertionError("a backend has no server after 30 s")


@pytest.mark.parametrize(("port", "path", "limit"), SIDES)
def test_body_at_the_limit_passes_and_above_it_gets_413(gateway, port, path, limit):
    with gateway.client(port) as client:
        assert client.post(path, content=b"x" * limit).status_code == 200
        refused = client.post(path, content=b"x" * (limit + 1))
    assert refused.status_code == 413
    assert refused.headers["content-type"] == "application/json"
    assert str(limit) in str(refused.json()["detail"])


@pytest.mark.parametrize(("port", "path", "limit"), SIDES)
def test_client_that_sends_60_mb_reads_the_413(gateway, port, path, limit):
    with gateway.client(port) as client:
        statuses = [client.post(path, content=b"x" * 60_000_000).status_code for _ in range(3)]
    assert statuses == [413] * 3


@pytest.mark.parametrize(("port", "path", "limit"), SIDES)
def test_body_without_a_length_gets_411(gateway, port, path, limit):
    with gateway.client(port) as client:
        assert client.post(path, content=iter([b"x", b"y"])).status_code == 411
        assert client.post(path).status_code == 200


@pytest.mark.parametrize(("port", "path", "limit"), SIDES)
def test_http2_without_negotiation_is_refused(gateway, port, path, limit):
    with socket.create_connection(("127.0.0.1", int(gateway.address[port])), timeout=10) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        assert b" 400 " in connection.recv(1000).split(b"\r\n")[0]


@pytest.mark.parametrize(("port", "path", "limit"), SIDES)
def test_headers_of_64_kb_are_refused(gateway, port, path, limit):
    with gateway.client(port) as client:
        assert client.get(path, headers={"Padding": "x" * 64_000}).status_code in (400, 431)


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("api-server", "/api/v2/dags/d/dagRuns/r/taskInstances/t/logs/dies"),
        ("api-server", "/api/v2/dags/d/dagRuns/r/taskInstances/t/xcomEntries/dies"),
        ("api-server", "/api/v2/dagSources/dies"),
        ("execution-api", "/execution/xcoms/d/r/t/dies"),
    ],
)
def test_expensive_read_that_ends_a_server_is_not_repeated(gateway, kind, path):
    gateway.get_without_answer(kind, path)
    assert gateway.counted(kind, path)[0] == 1


def test_percent_encoded_path_of_a_log_is_not_repeated(gateway):
    gateway.get_without_answer("api-server", "/api/v2/%6Cogs/dies")
    assert gateway.counted("api-server", "/api/v2/%6Cogs/dies")[0] == 1


@pytest.mark.parametrize(
    ("kind", "path"), [("api-server", "/api/v2/dags/dies"), ("execution-api", "/execution/variables/dies")]
)
def test_cheap_read_that_gets_no_answer_is_repeated(gateway, kind, path):
    gateway.get_without_answer(kind, path)
    assert gateway.counted(kind, path)[0] > 1


@pytest.mark.parametrize(("port", "path", "limit"), SIDES)
def test_32_large_bodies_reach_a_server_one_at_a_time(gateway, port, path, limit):
    path += "/slow"
    with gateway.client(port) as client, ThreadPoolExecutor(32) as pool:
        statuses = pool.map(lambda _: client.post(path, content=b"x" * limit).status_code, range(32))
        assert set(statuses) == {200}
    total, most = gateway.counted("api-server" if port == 8080 else "execution-api", path)
    assert (total, most) == (32, 1)


def test_small_requests_are_answered_while_logs_are_read(gateway):
    log, page = "/api/v2/logs/slow", "/api/v2/dags"
    with gateway.client() as client, ThreadPoolExecutor(16) as pool:
        logs = [pool.submit(client.get, log) for _ in range(12)]
        time.sleep(0.1)
        started = time.monotonic()
        assert client.get(page).status_code == 200
        assert time.monotonic() - started < 0.5
        assert {answer.result().status_code for answer in logs} == {200}
    assert gateway.counted("api-server", log) == (12, 2)
