"""The doors' own configuration in containers: servers behind them count requests, check passwords, show headers."""

from __future__ import annotations

import json
import ssl
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from ops.secrets_store import findings_door, pages_door
from tests.docker_session import session_name
from tests.images.conftest import ROOT, docker

SERVERS = ("api-server", "execution-api")
PASSWORD = "the right one"
SERVER = """
import http.server, json, sys, threading, time, urllib.parse
hits, running, most = {}, {}, {}
asked = []
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
    def session(self):
        asked.append([self.command, self.path, {name.lower(): value for name, value in self.headers.items()}])
        token = (self.headers["Cookie"] or "").partition("_token=")[2]
        if token.startswith("once") and str(asked).count(token) > 1:
            token = "ended"
        if token.startswith("frozen"):
            time.sleep(8)
        ended = {"Set-Cookie": '_token=""; HttpOnly; Max-Age=0; Path=/; SameSite=lax'}
        statuses = {"": (401, {}), "viewer": (403, {}), "ended": (403, ended), "broken": (500, {})}
        return statuses.get(token, (200, {}))
    def answer(self, path, sent):
        status, headers, body = 200, {}, b"{}"
        if path.endswith("/counted"):
            body = repr((hits, most)).encode()
        elif path.endswith("/headers"):
            body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
            headers = {"Set-Cookie": "session=1; HttpOnly", "Access-Control-Allow-Origin": "*"}
        elif path == "/api/v2/connections":
            status, headers = self.session()
        elif path == "/asked":
            body = json.dumps(asked).encode()
        elif path.endswith("/api/v2/alerts"):
            seen = {"request": f"{self.command} {self.path}", "authorization": self.headers["Authorization"]}
            body = json.dumps({**seen, "body": sent.decode()}).encode()
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
    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 200
for port in sys.argv[1:]:
    threading.Thread(target=Server(("", int(port)), Handler).serve_forever).start()
"""
SETTINGS = {
    **{"XCOM_LIMIT": "1m", "REQUEST_LIMIT": "256k", "LOG_IN_FAILURES": "10", "API_DOCS": "on"},
    **{"TRUSTED_PROXIES": "", "PUBLIC_HOSTS": "", "CHECK_HOSTS": "", "METRICS_ADDRESS": "*"},
    **{"PAGES_LOG_IN": "", "AIRFLOW_PORT": "8080", "AIRFLOW_URL": ""},
}
PLACE = "/usr/local/etc/haproxy"
FINDINGS = ("monitoring", "the DAG's password")
ALERTMANAGER_PASSWORD = "the Alertmanagers' password"
PORTS = (8080, 8081, 8405)
WITHOUT_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Every address is http, and a client that loads the authorities takes 20 ms of CPU."""


class Gateway:
    """The gateway, with two servers of each kind behind it, and its file of passwords."""

    def __init__(self, name: str, servers: dict[str, list[str]], passwords: Path) -> None:
        self.name = name
        self.passwords = passwords
        self.servers = servers
        self.address = {port: docker("port", name, str(port)).output.strip().rsplit(":", 1)[1] for port in PORTS}

    def client(self, port: int = 8080, **headers: str) -> httpx.Client:
        url = f"http://127.0.0.1:{self.address[port]}"
        return httpx.Client(base_url=url, timeout=20, headers=headers, verify=WITHOUT_AUTHORITIES)

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
        paths += [(8081, f"/alertmanager-{number}/api/v2/alerts") for number in (1, 2)]
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with suppress(httpx.TransportError):
                if all(self.client(port).get(path, auth=FINDINGS).status_code == 200 for port, path in paths):
                    return
            time.sleep(0.3)
        raise AssertionError("a backend has no server after 30 s")


@contextmanager
def gateway_with(images, settings: Mapping[str, str]) -> Iterator[Gateway]:
    """Run the gateway with settings over SETTINGS, for the duration of the block."""
    name = f"{session_name()}-{uuid.uuid4().hex[:8]}"
    started = [name, f"{name}-alertmanager"]
    assert docker("network", "create", name).status == 0
    folder = tempfile.TemporaryDirectory(prefix="gateway-")
    passwords = Path(folder.name) / "findings.cfg"
    passwords.write_text(findings_door([FINDINGS[1]], ALERTMANAGER_PASSWORD))
    passwords.chmod(0o644)
    passwords.parent.chmod(0o755)
    mounts = {
        ROOT / "compose/gateway/common.cfg": f"{PLACE}/common.cfg",
        passwords: "/run/secrets/findings.cfg",
        ROOT / "compose/gateway/haproxy.cfg": f"{PLACE}/haproxy.cfg",
    }
    try:
        aliases = [f"--network-alias=alertmanager-{number}" for number in (1, 2)]
        run("--network", name, "--name", started[1], *aliases, "--entrypoint", "python3",
            images["AIRFLOW_IMAGE"].reference, "-c", SERVER, "9093")  # fmt: skip
        servers: dict[str, list[str]] = {}
        for kind in SERVERS:
            for number in (1, 2):
                servers.setdefault(kind, []).append(f"{name}-{kind}-{number}")
                started.append(servers[kind][-1])
                run("--network", name, "--name", started[-1], "--network-alias", kind, "--entrypoint", "python3",
                    images["AIRFLOW_IMAGE"].reference, "-c", SERVER, "8080")  # fmt: skip
        run(
            *("--network", name, "--name", name, "--user", "99:99", "--tmpfs", "/tmp", "--entrypoint", "haproxy"),
            *(f"--publish=127.0.0.1::{port}" for port in PORTS),
            *(f"--env={key}={value}" for key, value in {**SETTINGS, **settings}.items()),
            *(f"--volume={source}:{target}:ro" for source, target in mounts.items()),
            f"--volume={ROOT}/compose/health/check-http.sh:/usr/local/bin/check-http.sh:ro",
            *(images["GATEWAY_IMAGE"].reference, "-W", "-db"),
            *(option for target in mounts.values() for option in ("-f", target)),
        )
        running = Gateway(name, servers, passwords)
        running.wait_until_served()
        yield running
    finally:
        docker("rm", "--force", "--volumes", *started)
        docker("network", "rm", name)
        folder.cleanup()


PAGES = {
    "grafana": 3000, "flower": 5555, "slack-stub": 8025, "prometheus": 9090, "alertmanager-1": 9093,
    "alertmanager-2": 9094,
}  # fmt: skip
"""The port of each page at the door. The server of both Alertmanagers is on 9093. Jaeger does not run."""
GRAFANA_HEADER = "X-Log-In-0123456789abcdef"
PASSWORDS = {"flower": 'flower\'s "password"', "observability": "another $HOME 'password' #1"}


class PagesDoor:
    """The door to the pages, with one server for all of them behind it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.address = {
            port: docker("port", name, str(port)).output.strip().rsplit(":", 1)[1] for port in (*PAGES.values(), 16686)
        }

    def client(self, page: str, password: str | None = None, **headers: str) -> httpx.Client:
        """Return a client with the page's password, with another one, or with none if it is empty."""
        if password is None:
            password = PASSWORDS["flower" if page == "flower" else "observability"]
        url = f"http://127.0.0.1:{self.address[PAGES.get(page, 16686)]}"
        log_in = ("admin", password) if password else None
        return httpx.Client(base_url=url, auth=log_in, timeout=20, headers=headers, verify=WITHOUT_AUTHORITIES)

    def asked(self) -> list[tuple[str, str, dict[str, str]]]:
        """Return the questions to Airflow about sessions: method, path and headers of each."""
        ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8080/asked').read().decode())"
        return [tuple(each) for each in json.loads(docker("exec", f"{self.name}-pages", "python3", "-c", ask).output)]

    def wait_until_served(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with suppress(httpx.TransportError):
                if all(self.client(page).get("/x").status_code == 200 for page in PAGES):
                    return
            time.sleep(0.3)
        raise AssertionError("a page has no server after 30 s")


@contextmanager
def pages_with(images, folder: Path, settings: Mapping[str, str]) -> Iterator[PagesDoor]:
    """Run the pages' door for the duration of the block.

    Args:
        images: The fixture.
        folder: For its file of passwords.
        settings: Over SETTINGS.
    """
    name = f"{session_name()}-{uuid.uuid4().hex[:8]}"
    passwords = folder / "pages.cfg"
    passwords.write_text(pages_door([PASSWORDS["flower"]], PASSWORDS["observability"], GRAFANA_HEADER))
    passwords.chmod(0o644)
    mounts = {
        ROOT / "compose/gateway/common.cfg": f"{PLACE}/common.cfg",
        passwords: "/run/secrets/pages.cfg",
        ROOT / "compose/pages/haproxy.cfg": f"{PLACE}/haproxy.cfg",
    }
    assert docker("network", "create", name).status == 0
    try:
        aliases = [f"--network-alias={page}" for page in (*PAGES, "gateway")]
        ports = sorted({"8080", "9093", *(str(port) for page, port in PAGES.items() if page != "alertmanager-2")})
        run("--network", name, "--name", f"{name}-pages", *aliases, "--entrypoint", "python3",
            images["AIRFLOW_IMAGE"].reference, "-c", SERVER, *ports)  # fmt: skip
        run(
            *("--network", name, "--name", name, "--user", "99:99", "--tmpfs", "/tmp", "--entrypoint", "haproxy"),
            *(f"--publish=127.0.0.1::{port}" for port in (*PAGES.values(), 16686)),
            *(f"--env={key}={value}" for key, value in {**SETTINGS, "CHECK_HOSTS": "on", **settings}.items()),
            *(f"--volume={source}:{target}:ro" for source, target in mounts.items()),
            f"--volume={ROOT}/compose/pages/airflow_session.lua:{PLACE}/airflow_session.lua:ro",
            *(images["GATEWAY_IMAGE"].reference, "-W", "-db"),
            *(option for target in mounts.values() for option in ("-f", target)),
        )
        door = PagesDoor(name)
        door.wait_until_served()
        yield door
    finally:
        docker("rm", "--force", "--volumes", name, f"{name}-pages")
        docker("network", "rm", name)


def run(*arguments: str) -> None:
    answer = docker("run", "--detach", *arguments)
    assert answer.status == 0, answer.output
