"""Guessed passwords at the gateway: limits by address and by user, and what they do not stop.

The gateway trusts this test as a proxy, so that X-Forwarded-For names the client.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import httpx
import pytest

from tests.images.doors import PASSWORD, Gateway, gateway_with
from tests.stack import wait_until

FAILURES = 10
USER_FAILURES = 3 * FAILURES
BURST = 30
FORM = "application/x-www-form-urlencoded"
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def gateway(images) -> Iterator[Gateway]:
    with gateway_with(images, {"TRUSTED_PROXIES": "0.0.0.0/0", "LOG_IN_FAILURES": str(FAILURES)}) as running:
        yield running


@pytest.fixture(scope="module")
def direct(images) -> Iterator[Gateway]:
    """Provide a gateway that trusts no proxy."""
    with gateway_with(images, {"LOG_IN_FAILURES": str(FAILURES)}) as running:
        yield running


def address() -> str:
    """Return an address that no other test uses."""
    return "10.{}.{}.{}".format(*next(numbers).to_bytes(3, "big"))


def user() -> str:
    return f"user{next(numbers)}"


def token(gateway: Gateway, name: str, password: str, client: str) -> int:
    body = {"username": name, "password": password}
    with gateway.client(**{"X-Forwarded-For": client}) as http:
        return http.post("/auth/token", json=body).status_code


def form(gateway: Gateway, name: str, password: str, client: str) -> httpx.Response:
    body = urlencode({"csrf_token": "c", "username": name, "password": password})
    with gateway.client(**{"X-Forwarded-For": client}) as http:
        return http.post("/auth/login/", content=body, headers={"Content-Type": FORM})


def test_an_address_is_refused_after_10_failed_tokens(gateway):
    client, name = address(), user()
    assert [token(gateway, name, "wrong", client) for _ in range(FAILURES)] == [401] * FAILURES
    refused = [token(gateway, name, PASSWORD, client), token(gateway, user(), PASSWORD, client)]
    assert refused == [429, 429]
    assert token(gateway, name, PASSWORD, address()) == 201


def test_failures_of_the_form_count_like_those_of_tokens(gateway):
    client, name = address(), user()
    assert [form(gateway, name, "wrong", client).status_code for _ in range(FAILURES)] == [302] * FAILURES
    refused = form(gateway, name, PASSWORD, client)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "300")
    assert token(gateway, name, PASSWORD, client) == 429


def test_25_successes_in_a_row_are_no_failure(gateway):
    client, name = address(), user()
    assert {token(gateway, name, PASSWORD, client) for _ in range(25)} == {201}
    assert form(gateway, name, PASSWORD, address()).headers["Location"] == "/"


def test_a_user_is_refused_from_new_addresses_only(gateway):
    home, name = address(), user()
    assert token(gateway, name, PASSWORD, home) == 201
    spellings = (name, name.upper(), f"\\u00{ord(name[0]):x}{name[1:]}")
    for spelling in itertools.islice(itertools.cycle(spellings), USER_FAILURES):
        with gateway.client(**{"X-Forwarded-For": address(), "Content-Type": "application/json"}) as http:
            body = f'{{"username": "{spelling}", "password": "wrong"}}'
            assert http.post("/auth/token", content=body).status_code == 401
    assert token(gateway, name, PASSWORD, address()) == 429
    assert form(gateway, name, PASSWORD, address()).status_code == 429
    assert token(gateway, name, PASSWORD, home) == 201
    assert token(gateway, user(), PASSWORD, address()) == 201


def test_a_log_in_form_without_password_makes_no_address_known(gateway):
    visited, name = address(), user()
    form(gateway, name, "wrong", visited)
    for _ in range(USER_FAILURES):
        token(gateway, name, "wrong", address())
    assert token(gateway, name, PASSWORD, visited) == 429


def test_addresses_of_one_ipv6_network_count_as_one(gateway):
    network, name = f"2001:db8:{next(numbers):x}:1", user()
    for host in range(FAILURES):
        assert token(gateway, name, "wrong", f"{network}::{host + 1:x}") == 401
    assert token(gateway, name, PASSWORD, f"{network}:ffff::1") == 429


def test_guesses_at_the_same_time_reach_airflow_30_times(gateway):
    client, name = address(), user()

    def guess(number: int) -> int:
        with gateway.client(**{"X-Forwarded-For": client}) as http:
            body = {"username": f"{name}{number}", "password": "wrong"}
            return http.post("/auth/token/slow", json=body).status_code

    with ThreadPoolExecutor(60) as pool:
        statuses = list(pool.map(guess, range(60)))
    assert statuses.count(401) <= BURST
    assert set(statuses) == {401, 429}


@pytest.mark.parametrize(
    ("path", "content_type", "body"),
    [
        ("/auth/token", "application/json", json.dumps({"username": "a", "password": "b"}).encode("utf-16")),
        ("/auth/token", "application/json", b'{"\\u0075sername": "a", "password": "b"}'),
        ("/auth/token", "application/json", b'{"username": "x", "\\u0075sername": "a", "password": "b"}'),
        ("/auth/token", "application/json", b'{"username": "x", "username": "a", "password": "b"}'),
        ("/auth/token", "application/json", b'{"username": "a", "password": "b", "more": {"username": "x"}}'),
        ("/auth/token/cli", "application/json", b'[{"username": "a", "password": "b"}]'),
        ("/auth/%74oken", "application/json", b'{"username": "x", "username": "a", "password": "b"}'),
        ("/auth/login/", FORM, b"usern%61me=a&password=b"),
        ("/auth/login/", FORM, b"usern%61me=a&password=b&username=x"),
        ("/auth/login/", "multipart/form-data; boundary=x", b"--x--"),
        ("/auth/login/", "text/plain", b"username=a&password=b"),
    ],
)
def test_a_log_in_that_hides_its_user_is_refused(gateway, path, content_type, body):
    before = gateway.counted("api-server", path)
    with gateway.client(**{"X-Forwarded-For": address(), "Content-Type": content_type}) as http:
        assert http.post(path, content=body).status_code == 400
    assert gateway.counted("api-server", path) == before


@pytest.mark.parametrize(
    "body",
    [
        b'{"username":"a","password":"b"}',
        b' {\n "password" : "b\\"\\u00e9,{" ,\t"username": "\xc3\xbc", "n": 1, "t": true }\n',
    ],
)
def test_a_log_in_in_any_layout_of_json_is_accepted(gateway, body):
    with gateway.client(**{"X-Forwarded-For": address(), "Content-Type": "application/json"}) as http:
        assert http.post("/auth/token", content=body).status_code == 401


def test_a_log_in_of_more_than_8000_bytes_gets_413(gateway):
    with gateway.client() as http:
        assert http.post("/auth/token", json={"username": "a", "password": "x" * 8000}).status_code == 413
        assert http.post("/auth/login/", content=b"x" * 60_000_000).status_code == 413


def test_refused_log_ins_are_in_the_health_check_and_the_metrics(gateway):
    client = address()
    for _ in range(FAILURES + 1):
        token(gateway, user(), "wrong", client)

    def are_equal() -> bool:
        """An entry may expire between the two reads."""
        addresses, _ = re.fullmatch(r"refused log-ins: (\d+) addresses, (\d+) users", gateway.health()).groups()
        with gateway.client(8405) as http:
            metrics = http.get("/metrics").text
        series = f'haproxy_sticktable_used{{name="locked_addresses",type="ipv6"}} {addresses}'
        return int(addresses) >= 1 and series in metrics

    wait_until(are_equal, timeout=30, what="the health check and the metrics show the refused address")


def test_a_rotated_forwarded_address_does_not_evade_the_limit(direct):
    statuses = [token(direct, user(), "wrong", address()) for _ in range(FAILURES + 2)]
    assert statuses == [401] * FAILURES + [429, 429]


def test_airflow_sees_the_address_of_the_connection_only(direct):
    spoofed = {"X-Forwarded-For": "192.0.2.1", "X-Real-IP": "192.0.2.1", "Forwarded": "for=192.0.2.1",
               "X-Forwarded-Host": "evil.example"}  # fmt: skip
    with direct.client(**spoofed) as http:
        seen = http.get("/headers").json()
    assert "192.0.2.1" not in seen["x-forwarded-for"]
    assert not {"x-real-ip", "forwarded", "x-forwarded-host"} & seen.keys()


def test_airflow_sees_the_address_that_a_trusted_proxy_added(gateway):
    with gateway.client(**{"X-Forwarded-For": "192.0.2.1, 192.0.2.2"}) as http:
        assert http.get("/headers").json()["x-forwarded-for"] == "192.0.2.2"
