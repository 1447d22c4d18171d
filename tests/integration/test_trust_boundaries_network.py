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
    """The form fails last, and once: FAB itself refuses more than 5 log-ins by the form in 40 s."""
    with httpx.Client(base_url=stack.airflow_url, follow_redirects=False) as http:
        wrong = {"username": "nobody", "password": "wrong"}
        tokens = [http.post("/auth/token", json=wrong).status_code for _ in range(FAILURES - 1)]
        assert tokens == [httpx.codes.UNAUTHORIZED] * (FAILURES - 1)
        page = http.get("/auth/login/").text
        token = page.partition('name="csrf_token"')[2].partition('value="')[2].partition('"')[0]
        form = {"csrf_token": token, **wrong}
        assert http.post("/auth/login/", data=form).status_code == httpx.codes.FOUND
        assert "Too many failed log-ins" in http.post("/auth/login/", data=form).text


def test_an_ordinary_log_in_by_the_form_works(stack: Stack):
    with httpx.Client(base_url=stack.airflow_url, follow_redirects=True) as http:
        page = http.get("/auth/login/").text
        token = page.partition('name="csrf_token"')[2].partition('value="')[2].partition('"')[0]
        form = {"csrf_token": token, "username": "admin", "password": stack.secret("airflow_admin_password")}
        assert http.post("/auth/login/", data=form).is_success
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
    "FLOWER_PORT": "/",
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


CONNECT = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def opens(target):
    try:
        socket.create_connection(target, timeout=2).close()
    except OSError:
        return False
    return True
targets = [tuple(target) for target in json.loads(sys.argv[1])]
with ThreadPoolExecutor(16) as pool:
    print(json.dumps([f"{host}:{port}" for (host, port), open in zip(targets, pool.map(opens, targets)) if open]))
"""
RECEIVERS = [("statsd-exporter", 9125), ("otel-collector", 4317), ("otel-collector", 4318)]
CLOSED = {
    "statsd-exporter": [9102],
    "otel-collector": [8888, 8889, 8890, 13133],
    "gateway": [8405, 8406, 8407],
    "prometheus": [9090],
    "alertmanager-1": [9093, 9094],
    "alertmanager-2": [9093, 9094],
    "slack-stub": [8025],
    "pages": [5555, 9090, 9093, 9094, 8025, 3000, 16686, 8405],
    "postgres-exporter": [9187],
    "redis-exporter": [9121],
    "cadvisor": [8080],
    "api-server": [8080],
    "execution-api": [8080],
    "flower": [5555],
}
"""Ports that no task reaches: by the service's name, nor by an address of it."""


@pytest.mark.parametrize("component", ["worker", "dag-processor", "triggerer"])
def test_a_task_reaches_statsd_and_otlp_and_nothing_else(stack: Stack, component: str):
    (source, *_) = stack.containers(component)
    targets = [(service, port) for service, ports in CLOSED.items() for port in ports]
    for service, ports in CLOSED.items():
        for container in stack.containers(service):
            targets += [(address, port) for address in container.ip.values() for port in ports]
    reached = json.loads(source.execute("python", "-S", "-c", CONNECT, json.dumps([*RECEIVERS, *targets])).stdout)
    assert reached == [f"{host}:{port}" for host, port in RECEIVERS]


ASK = """
import base64, json, sys, urllib.error, urllib.request
url, log_in, method, content = json.loads(sys.argv[1])
headers = {"Content-Type": "application/json"}
if log_in:
    headers["Authorization"] = "Basic " + base64.b64encode(log_in.encode()).decode()
request = urllib.request.Request(url, content.encode() or None, headers, method=method)
try:
    with urllib.request.urlopen(request, timeout=10) as answer:
        print(json.dumps([answer.status, answer.read().decode()]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, ""]))
"""


def ask(container: Container, url: str, log_in: str = "", method: str = "GET", content: str = "") -> tuple[int, str]:
    """Return the status and the text of the answer to a request from a container with Python."""
    sent = json.dumps([url, log_in, method, content])
    status, text = json.loads(container.execute("python", "-S", "-c", ASK, sent).stdout)
    return status, text


def test_a_dag_file_has_no_access_to_an_api(stack: Stack):
    (source,) = stack.containers("dag-processor")
    targets = [("gateway", 8080), ("gateway", 8081), ("api-server", 8080), ("execution-api", 8080)]
    targets += [
        (address, port)
        for service, port in targets
        for each in stack.containers(service)
        for address in each.ip.values()
    ]
    reached = source.execute("python", "-S", "-c", CONNECT, json.dumps(targets)).stdout
    assert json.loads(reached) == []


@pytest.mark.parametrize("number", [1, 2])
def test_a_task_gives_an_alertmanager_findings_only(stack: Stack, number: int):
    (worker, *_) = stack.containers("worker")
    log_in = f"monitoring:{stack.secret('airflow_monitoring_password')}"
    door = f"http://gateway:8081/alertmanager-{number}"
    assert ask(worker, f"{door}/api/v2/alerts")[0] == 401
    status, alerts = ask(worker, f"{door}/api/v2/alerts?filter=alertname%3D%22Watchdog%22", log_in)
    assert status == 200
    assert {alert["labels"].get("source") for alert in json.loads(alerts)} <= {"monitoring_dag"}
    forged = '[{"labels":{"alertname":"PostgresDown","source":"monitoring_dag"},"annotations":{},'
    forged += '"startsAt":"2030-01-01T00:00:00Z","endsAt":"2040-01-01T00:00:00Z"}]'
    assert ask(worker, f"{door}/api/v2/alerts", log_in, "POST", forged)[0] == 400
    for method, path in (("POST", "/-/reload"), ("GET", "/api/v2/silences"), ("POST", "/api/v2/silences")):
        assert ask(worker, door + path, log_in, method, "{}" if method == "POST" else "")[0] == 404


def test_the_exporter_probes_for_prometheus_only(stack: Stack):
    # A container that shares its network.
    (neighbour,) = stack.containers("slack-stub")
    probe = "http://postgres-exporter.monitoring:9187/probe?target=slack-stub:8025&auth_module=monitoring"
    assert ask(neighbour, probe)[0] == 401
    for url in ("http://prometheus:9090/api/v1/targets", "http://alertmanager-1:9093/api/v2/silences"):
        assert ask(neighbour, url)[0] == 401
    expression = 'up{job=~"postgres|prometheus|alertmanager"} == 1'
    wait_until(lambda: len(stack.prometheus.query(expression)) == 4, timeout=60, what="all four targets are up")
