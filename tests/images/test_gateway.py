"""The gateway's own configuration in front of servers that count requests, and end connections on some paths."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import pytest

from tests.images.doors import Gateway, gateway_with

SIDES = [
    (8080, "/api/v2/anything", 256_000),
    (8081, "/execution/anything", 256_000),
    (8081, "/execution/xcoms/anything", 1_000_000),
]


@pytest.fixture(scope="module")
def gateway(images) -> Iterator[Gateway]:
    with gateway_with(images, {}) as running:
        yield running


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
def test_a_client_gets_its_next_answer_after_a_refused_body(gateway, port, path, limit):
    """HAProxy 3.0 let one in ten hang while it kept the connection."""
    with gateway.client(port) as client:
        for _ in range(40):
            assert client.post(path, content=b"x" * 4_000_000).status_code == 413
            assert client.post(path, content=iter([b"x"])).status_code == 411


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
    with gateway.client() as client, ThreadPoolExecutor(32) as pool:
        logs = [pool.submit(client.get, log) for _ in range(32)]
        wait(logs, return_when=FIRST_COMPLETED)
        assert client.get(page).status_code == 200
        assert not all(answer.done() for answer in logs), "the page does not wait for the logs"
        assert {answer.result().status_code for answer in logs} == {200}
    assert gateway.counted("api-server", log) == (32, 2)


def test_every_answer_has_the_security_headers(gateway):
    with gateway.client() as client:
        answers = [client.get("/headers"), client.get("/execution/x"), client.post("/auth/token")]
    assert [answer.status_code for answer in answers] == [200, 404, 400]
    for answer in answers:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "SAMEORIGIN"
        assert "frame-ancestors 'self'" in answer.headers["Content-Security-Policy"]
        assert "Strict-Transport-Security" not in answer.headers


def test_behind_tls_cookies_are_secure_and_hsts_is_set(gateway):
    with gateway.client(**{"X-Forwarded-Proto": "https"}) as client:
        answer = client.get("/headers")
    assert answer.headers["Set-Cookie"] == "session=1; HttpOnly; Secure"
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
    assert answer.json()["x-forwarded-proto"] == "https"


SPELLINGS = [
    "/execution/health", "//execution/health", "///execution/health", "/EXECUTION/health", "/Execution/health",
    "/%65xecution/health", "/%45xecution/health", "/executio%6e/health", "/execution%2fhealth", "/execution%2Fhealth",
    "/./execution/health", "/../execution/health", "/%2e/execution/health", "/%2e%2e/execution/health",
    "/.//execution/health", "/%2fexecution/health", "/%2Fexecution/health", "/execution", "/execution/",
    "/execution//health", "/execution/../execution/health", "/execution/./health", "/execution?x=/api/v2",
    "http://localhost/execution/health",
]  # fmt: skip


@pytest.mark.parametrize("target", SPELLINGS)
def test_no_spelling_of_the_execution_api_is_served(gateway, target):
    assert raw(gateway, f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n") == 404


@pytest.mark.parametrize(
    "headers",
    [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Transfer-Encoding : chunked\r\n",
    ],
)
def test_a_smuggled_request_is_refused(gateway, headers):
    request = f"POST /api/v2/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n0\r\n\r\n"
    assert raw(gateway, request) in (400, 411, 413)


def raw(gateway: Gateway, request: str) -> int:
    """Send a request as it is written, and return the status of the answer."""
    with socket.create_connection(("127.0.0.1", int(gateway.address[8080])), timeout=10) as connection:
        connection.sendall(request.encode())
        return int(connection.recv(1000).split()[1])


@pytest.fixture(scope="module")
def closed(images) -> Iterator[Gateway]:
    """Provide a gateway with host names, without API documentation, and with a proxy that is not this test."""
    settings = {"PUBLIC_HOSTS": "airflow.example other", "CHECK_HOSTS": "yes", "API_DOCS": "off"}
    with gateway_with(images, {**settings, "TRUSTED_PROXIES": "192.0.2.7"}) as running:
        yield running


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((host, 200) for host in ("airflow.example", "OTHER:8080", "localhost:8080", "192.0.2.7", "[2001:db8::1]:80")),
        *((host, 200) for host in ("gateway:8080",)),
        *((host, 421) for host in ("evil.example", "airflow.example.evil", "127.0.0.1.evil.example", "")),
    ],
)
def test_a_port_with_public_hosts_answers_for_these_only(closed, host, status):
    with closed.client(Host=host) as client:
        assert client.get("/x").status_code == status


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/auth/docs", "/auth/openapi.json", "/%64ocs"])
def test_api_documentation_is_as_the_operator_decides(gateway, closed, path):
    with gateway.client() as shown, closed.client() as hidden:
        assert (shown.get(path).status_code, hidden.get(path).status_code) == (200, 404)


def test_https_counts_from_a_trusted_proxy_only(closed):
    with closed.client(**{"X-Forwarded-Proto": "https"}) as client:
        answer = client.get("/headers")
    assert answer.json()["x-forwarded-proto"] == "http"
    assert "Strict-Transport-Security" not in answer.headers
