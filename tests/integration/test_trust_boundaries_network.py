"""What a neighbour on the network and a task can reach: log-ins, pages, telemetry."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from ops.services import local_address
from tests.stack import Container, Stack, wait_until

FAILURES = 10
"""The default of LOG_IN_FAILURES."""
GUESS = """
import json, sys, urllib.error, urllib.request
def status(user, password):
    body = json.dumps({"username": user, "password": password}).encode()
    headers = {"Content-Type": "application/json", "X-Forwarded-For": "192.0.2.%d" % len(statuses)}
    request = urllib.request.Request("http://gateway:8080/auth/token", body, headers)
    try:
        return urllib.request.urlopen(request, timeout=30).status
    except urllib.error.HTTPError as error:
        return error.code
statuses = []
for password in json.loads(sys.argv[2]):
    statuses.append(status(sys.argv[1], password))
print(json.dumps(statuses))
"""
TABLES = ("log_ins_by_address", "log_ins_by_user", "locked_addresses", "locked_users")
FORGET = f"exec 3<>/dev/tcp/127.0.0.1/8407; echo '{'; '.join(f'clear table {table}' for table in TABLES)}' >&3; cat <&3"


def guess(worker: Container, user: str, passwords: list[str]) -> list[int]:
    """Return the gateway's answers to log-ins from a worker, each with another X-Forwarded-For."""
    return json.loads(worker.execute("python", "-S", "-c", GUESS, user, json.dumps(passwords)).stdout)


@pytest.fixture
def forgotten(stack: Stack) -> Iterator[None]:
    """Let the gateway forget failed log-ins after the test."""
    yield
    (gateway,) = stack.containers("gateway")
    gateway.execute("bash", "-c", FORGET)


@pytest.mark.usefixtures("forgotten")
def test_guessed_passwords_are_refused_reported_and_hurt_nobody(stack: Stack):
    (worker, *_) = stack.containers("worker")
    password = stack.secret("airflow_admin_password")
    assert guess(worker, "admin", ["wrong"] * FAILURES + [password]) == [401] * FAILURES + [429]
    assert stack.log_in("admin", password).get("/version"), "the same user from another address"

    def refused() -> bool:
        guess(worker, "admin", ["wrong"])
        services = stack.status()["services"]
        return any(each["refused_addresses"] for service in services for each in service["instances"])

    wait_until(refused, timeout=60, what="status reports the refused address", interval=1)
    firing = 'ALERTS{alertname="AirflowLogInsRefused", alertstate="firing"}'

    def reported() -> bool:
        guess(worker, "admin", ["wrong"])
        return bool(stack.prometheus.query(firing))

    wait_until(reported, timeout=120, what="AirflowLogInsRefused fires", interval=3)


@pytest.mark.usefixtures("forgotten")
def test_failures_of_the_log_in_form_count(stack: Stack):
    with httpx.Client(base_url=stack.airflow_url, follow_redirects=False) as http:
        page = http.get("/auth/login/").text
        token = page.partition('name="csrf_token"')[2].partition('value="')[2].partition('"')[0]
        form = {"csrf_token": token, "username": "nobody", "password": "wrong"}
        failures = 0

        def refused_by_the_gateway() -> bool:
            """Try once more; FAB itself refuses more than 5 log-ins in 40 s, which is no failure."""
            nonlocal failures
            answer = http.post("/auth/login/", data=form)
            failures += answer.status_code == httpx.codes.FOUND
            return "Too many failed log-ins" in answer.text

        wait_until(refused_by_the_gateway, timeout=180, what="the form is refused", interval=1)
        assert failures == FAILURES


def test_an_ordinary_log_in_by_the_form_works(stack: Stack):
    with httpx.Client(base_url=stack.airflow_url, follow_redirects=True) as http:
        page = http.get("/auth/login/").text
        token = page.partition('name="csrf_token"')[2].partition('value="')[2].partition('"')[0]
        form = {"csrf_token": token, "username": "admin", "password": stack.secret("airflow_admin_password")}
        answer = http.post("/auth/login/", data=form)
        assert answer.is_success
        assert "_token" in http.cookies
        assert http.get("/api/v2/dags", params={"limit": 1}).status_code == httpx.codes.OK


def test_airflow_answers_with_security_headers(stack: Stack):
    page = httpx.get(f"{stack.airflow_url}/")
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert page.headers["X-Frame-Options"] == "SAMEORIGIN"
    assert "frame-ancestors" in page.headers["Content-Security-Policy"]
    behind_tls = httpx.get(f"{stack.airflow_url}/auth/login/", headers={"X-Forwarded-Proto": "https"})
    assert "Strict-Transport-Security" in behind_tls.headers
    assert all("Secure" in cookie for cookie in behind_tls.headers.get_list("Set-Cookie"))
    assert behind_tls.headers.get_list("Set-Cookie")


def test_an_anonymous_body_of_60_mb_is_refused(stack: Stack):
    for path in ("/auth/token", "/auth/login/", "/api/v2/variables"):
        assert httpx.post(f"{stack.airflow_url}{path}", content=b"x" * 60_000_000, timeout=60).status_code == 413


PAGES = {
    "FLOWER_PORT": "/api/workers",
    "PROMETHEUS_PORT": "/api/v1/query?query=up",
    "ALERTMANAGER_PORT": "/api/v2/silences",
    "ALERTMANAGER_2_PORT": "/api/v2/silences",
    "SLACK_STUB_PORT": "/messages",
}


@pytest.mark.parametrize(("port", "path"), PAGES.items())
def test_a_page_needs_a_log_in_and_its_own_host_name(stack: Stack, port: str, path: str):
    secret = "flower_password" if port == "FLOWER_PORT" else "observability_password"
    with httpx.Client(base_url=local_address(stack.settings, port), timeout=30) as http:
        assert http.get(path).status_code == httpx.codes.UNAUTHORIZED
        http.auth = ("admin", stack.secret(secret))
        assert http.get(path).status_code == httpx.codes.OK
        assert http.get(path, headers={"Host": "evil.example"}).status_code == 421
        assert http.get("/debug/pprof/").status_code == httpx.codes.NOT_FOUND


def test_another_site_makes_no_silence_with_the_users_log_in(stack: Stack):
    silence = {
        **{"startsAt": "2030-01-01T00:00:00Z", "endsAt": "2030-01-02T00:00:00Z"},
        **{"createdBy": "another site", "comment": "another site"},
        "matchers": [{"name": "alertname", "value": ".*", "isRegex": True}],
    }
    log_in = ("admin", stack.secret("observability_password"))
    for port in ("ALERTMANAGER_PORT", "ALERTMANAGER_2_PORT"):
        with httpx.Client(base_url=local_address(stack.settings, port), auth=log_in, timeout=30) as http:
            for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
                made = http.post("/api/v2/silences", json=silence, headers=headers)
                assert made.status_code == httpx.codes.FORBIDDEN
            assert "another site" not in http.get("/api/v2/silences").text
