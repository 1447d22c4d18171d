"""The gateway's own configuration in containers, in front of servers that count requests and check passwords."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import httpx

from tests.docker_session import session_name
from tests.images.conftest import ROOT, docker

SERVERS = ("api-server", "execution-api")
PASSWORD = "the right one"
SERVER = """
import http.server, json, threading, time, urllib.parse
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
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "slow" in path:
            time.sleep(0.5)
        with lock:
            running[path] -= 1
        if "dies" in path:
            self.close_connection = True
            return
        self.answer(path, sent)
    def answer(self, path, sent):
        status, headers, body = 200, {}, b"{}"
        if path.endswith("/counted"):
            body = repr((hits, most)).encode()
        elif path.endswith("/headers"):
            body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
            headers = {"Set-Cookie": "session=1; HttpOnly", "Access-Control-Allow-Origin": "*"}
        elif path.startswith("/auth/token"):
            status = 201 if json.loads(sent).get("password") == "the right one" else 401
        elif path.startswith("/auth/login"):
            password = urllib.parse.parse_qs(sent.decode()).get("password")
            status, headers = 302, {"Location": "/" if password == ["the right one"] else "/auth/login/?next="}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_PUT = do_PATCH = do_GET
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 200
Server(("", 8080), Handler).serve_forever()
"""
SETTINGS = {
    **{"XCOM_LIMIT": "1m", "REQUEST_LIMIT": "256k", "LOG_IN_FAILURES": "10", "API_DOCS": "on"},
    **{"TRUSTED_PROXIES": "", "PUBLIC_HOSTS": "", "CHECK_HOSTS": ""},
}
FILES = ("common.cfg", "haproxy.cfg")
PORTS = (8080, 8081, 8405)


class Gateway:
    """The gateway, with two servers of each kind behind it."""

    def __init__(self, name: str, servers: dict[str, list[str]]) -> None:
        self.name = name
        self.servers = servers
        self.address = {port: docker("port", name, str(port)).output.strip().rsplit(":", 1)[1] for port in PORTS}

    def client(self, port: int = 8080, **headers: str) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.address[port]}", timeout=20, headers=headers)

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

    def health(self) -> str:
        """Return what the health check prints about log-ins."""
        check = docker("exec", self.name, "bash", "/usr/local/bin/check-http.sh", "8406/refused-log-ins")
        assert check.status == 0, check.output
        return check.output.strip()

    def wait_until_served(self) -> None:
        """Wait until every backend has a server: HAProxy checks those of large requests every 3 s."""
        paths = [(8080, "/x"), (8080, "/logs/x"), (8080, "/logs/x?full_content=true"), (8081, "/execution/x")]
        paths += [(8080, "/dagSources/x"), (8081, "/execution/xcoms/x")]
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with suppress(httpx.TransportError):
                if all(self.client(port).get(path).status_code == 200 for port, path in paths):
                    return
            time.sleep(0.3)
        raise AssertionError("a backend has no server after 30 s")


@contextmanager
def gateway_with(images, settings: Mapping[str, str]) -> Iterator[Gateway]:
    """Run the gateway with settings over SETTINGS, for the duration of the block."""
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
        configuration = [option for file in FILES for option in ("-f", f"/usr/local/etc/haproxy/{file}")]
        run(
            *("--network", name, "--name", name, "--user", "99:99", "--tmpfs", "/tmp", "--entrypoint", "haproxy"),
            *(f"--publish=127.0.0.1::{port}" for port in PORTS),
            *(f"--env={key}={value}" for key, value in {**SETTINGS, **settings}.items()),
            *(f"--volume={ROOT}/compose/gateway/{file}:/usr/local/etc/haproxy/{file}:ro" for file in FILES),
            f"--volume={ROOT}/compose/health/check-http.sh:/usr/local/bin/check-http.sh:ro",
            *(images["GATEWAY_IMAGE"].reference, "-W", "-db", *configuration),
        )
        running = Gateway(name, servers)
        running.wait_until_served()
        yield running
    finally:
        docker("rm", "--force", "--volumes", *started)
        docker("network", "rm", name)


def run(*arguments: str) -> None:
    answer = docker("run", "--detach", *arguments)
    assert answer.status == 0, answer.output
