"""Who can access what, by real requests for each cell of access_matrix.py: roles of Airflow, DAG code, host users."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import pytest

from ops.services import PUBLISHED, local_address
from tests.integration.access_matrix import ACCESS, allowed
from tests.stack import Stack, wait_until

NAME = "tests_access"
DAG = "is_triggered"
ROLES = ("Viewer", "User", "Op", "Admin")
REFUSED = {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}
DOORS = ("gateway", "pages")
FORGET = (
    "exec 3<>/dev/tcp/127.0.0.1/8407; echo 'clear table log_ins_by_address; clear table locked_addresses' >&3; cat <&3"
)


@dataclass(frozen=True)
class Visitor:
    """Who sends requests.

    Attributes:
        stack: The stack.
        http: A client of Airflow, with a token if the visitor has an account.
        log_in: The user and password of Airflow; None without an account.
        run: The path of a finished run of DAG.
    """

    stack: Stack
    http: httpx.Client
    log_in: tuple[str, str] | None
    run: str

    def may(self, *requests: tuple[str, str, object]) -> bool:
        """Return whether all requests to /api/v2 or /auth succeed; all or none must."""
        paths = [path if path.startswith("/auth/") else f"/api/v2{path}" for _, path, _ in requests]
        answers = [
            self.http.request(method, path, json=body) for (method, _, body), path in zip(requests, paths, strict=True)
        ]
        if all(answer.status_code in REFUSED for answer in answers):
            return False
        assert all(answer.is_success for answer in answers), [(answer.url, answer.text) for answer in answers]
        return True

    def inside(self, path: str, **options: object) -> httpx.Response:
        """Return the answer of the gateway's side for tasks: this host reaches it by the container's address."""
        (gateway,) = self.stack.containers("gateway")
        return httpx.get(f"http://{gateway.ip[f'{self.stack.name}_execution']}:8081{path}", timeout=30, **options)


def connection(name: str, **fields: object) -> dict[str, object]:
    return {"connection_id": name, "conn_type": "http", **fields}


def account(name: str, role: str, password: str) -> dict[str, object]:
    names = {"username": name, "first_name": "Tests", "last_name": role, "email": f"{name}@tests.invalid"}
    return {**names, "password": password, "roles": [{"name": role}]}


def writes(path: str, name: str, created: dict[str, object]) -> Callable[[Visitor], bool]:
    """Return a probe that creates, changes and deletes an object."""
    return lambda visitor: visitor.may(
        ("POST", path, created), ("PATCH", f"{path}/{name}", created), ("DELETE", f"{path}/{name}", None)
    )


def reads_passwords(visitor: Visitor) -> bool:
    answers = [
        visitor.http.get(f"/api/v2/connections{path}") for path in (f"?connection_id_pattern={NAME}", f"/{NAME}")
    ]
    return any("a password" in answer.text or "a key" in answer.text for answer in answers)


def triggers(visitor: Visitor) -> bool:
    started = {"logical_date": None, "conf": {}}
    cleared = {"dry_run": True, "dag_run_id": visitor.run.rpartition("/")[2]}
    backfill = {"dag_id": DAG, "from_date": "2026-01-01T00:00:00Z", "to_date": "2026-01-02T00:00:00Z"}
    # The DAG has no schedule: whoever may create backfills gets 422.
    refused = visitor.http.post("/api/v2/backfills/dry_run", json=backfill).status_code in REFUSED
    runs = visitor.may(("POST", f"/dags/{DAG}/dagRuns", started), ("POST", f"/dags/{DAG}/clearTaskInstances", cleared))
    assert runs is not refused
    return runs


def calls_execution_api(visitor: Visitor) -> bool:
    published = visitor.http.get(f"/execution/variables/{NAME}")
    assert published.status_code == httpx.codes.NOT_FOUND
    return visitor.inside(f"/execution/variables/{NAME}", headers=visitor.http.headers).is_success


def sends_findings(visitor: Visitor) -> bool:
    published = visitor.http.get("/alertmanager-1/api/v2/alerts")
    assert "application/json" not in published.headers.get("Content-Type", ""), "Airflow's own page"
    return visitor.inside("/alertmanager-1/api/v2/alerts", auth=visitor.log_in).is_success


def opens_a_page(visitor: Visitor) -> bool:
    pages = [each for each in PUBLISHED if each.page != "airflow"]
    paths = {"grafana": "/api/org"}  # its other pages show its log-in
    urls = [local_address(visitor.stack.settings, each.port) + paths.get(each.page, "/") for each in pages]
    return any(httpx.get(url, auth=visitor.log_in, timeout=30).is_success for url in urls)


PROBES: dict[str, Callable[[Visitor], bool]] = {
    "read DAGs, runs and XComs": lambda visitor: visitor.may(
        *(("GET", path, None) for path in (f"/dags/{DAG}", f"/dagSources/{DAG}", visitor.run)),
        ("GET", f"{visitor.run}/taskInstances/wait_for_nothing/xcomEntries", None),
    ),
    "read task logs": lambda visitor: visitor.may(
        ("GET", f"{visitor.run}/taskInstances/wait_for_nothing/logs/1", None)
    ),
    "trigger and clear runs": triggers,
    "pause DAGs": lambda visitor: visitor.may(("PATCH", f"/dags/{DAG}", {"is_paused": False})),
    "change XComs": lambda visitor: visitor.may(
        ("POST", f"{visitor.run}/taskInstances/wait_for_nothing/xcomEntries", {"key": "by_user", "value": 1}),
        ("DELETE", f"{visitor.run}/taskInstances/wait_for_nothing/xcomEntries/by_user", None),
    ),
    "read Variables": lambda visitor: visitor.may(("GET", "/variables", None), ("GET", f"/variables/{NAME}", None)),
    "write Variables": writes("/variables", f"{NAME}_new", {"key": f"{NAME}_new", "value": "v"}),
    "read Connections": lambda visitor: visitor.may(
        ("GET", "/connections", None), ("GET", f"/connections/{NAME}", None)
    ),
    "read passwords of Connections": reads_passwords,
    "write Connections": writes("/connections", f"{NAME}_new", connection(f"{NAME}_new")),
    "change pools": writes(
        "/pools", f"{NAME}_new", {"name": f"{NAME}_new", "slots": 1, "description": "", "include_deferred": False}
    ),
    "manage users and roles": lambda visitor: visitor.may(
        ("GET", "/auth/fab/v1/users", None),
        ("POST", "/auth/fab/v1/users", account("tests-new", "Viewer", secrets.token_urlsafe(24))),
        ("DELETE", "/auth/fab/v1/users/tests-new", None),
        ("POST", "/auth/fab/v1/roles", {"name": "tests-new", "actions": []}),
        ("DELETE", "/auth/fab/v1/roles/tests-new", None),
    ),
    "read the audit log": lambda visitor: visitor.may(("GET", "/eventLogs", None)),
    "read Airflow's configuration": lambda visitor: visitor.may(
        ("GET", "/config", None), ("GET", "/config/section/core/option/fernet_key", None)
    ),
    "call the Execution API": calls_execution_api,
    "send findings to the Alertmanagers": sends_findings,
    "open another page than Airflow": opens_a_page,
}


@pytest.fixture(scope="module")
def run(stack: Stack) -> Iterator[str]:
    """Create a Variable, a Connection and a finished run to access; return the run's path."""
    http = stack.api.http
    secret = {"login": "a login", "password": "a password", "extra": json.dumps({"api_key": "a key"})}
    http.post("/api/v2/variables", json={"key": NAME, "value": "a value"}).raise_for_status()
    http.post("/api/v2/connections", json=connection(NAME, **secret)).raise_for_status()
    try:
        run_id = stack.api.trigger(DAG)
        assert stack.api.wait_for_run(DAG, run_id, timeout=90) == "success"
        yield f"/dags/{DAG}/dagRuns/{run_id}"
    finally:
        http.delete(f"/api/v2/variables/{NAME}")
        for name in (NAME, f"{NAME}_redirected"):
            http.delete(f"/api/v2/connections/{name}")


@pytest.fixture(scope="module")
def visitors(stack: Stack, run: str) -> Iterator[dict[str, Visitor]]:
    """Create a user with each role; return the visitors by their column."""
    anonymous = Visitor(stack, httpx.Client(base_url=stack.airflow_url, timeout=30), None, run)
    by_column = {"host user": anonymous, "neighbour": anonymous}
    try:
        for role in ROLES:
            log_in = (f"tests-{role.lower()}", secrets.token_urlsafe(24))
            created = stack.api.http.post("/auth/fab/v1/users", json=account(log_in[0], role, log_in[1]))
            created.raise_for_status()
            by_column[role] = Visitor(stack, stack.log_in(*log_in).http, log_in, run)
        yield by_column
    finally:
        for role in ROLES:
            stack.api.http.delete(f"/auth/fab/v1/users/tests-{role.lower()}")


@pytest.fixture
def forgotten(stack: Stack) -> Iterator[None]:
    """Let the doors forget the refused log-ins after the test: 10 would lock this address."""
    yield
    for door in DOORS:
        stack.containers(door)[0].execute("bash", "-c", FORGET)


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("who", [*ROLES, "host user", "neighbour"])
def test_each_role_accesses_exactly_its_column(visitors: dict[str, Visitor], who: str):
    assert {access for access in ACCESS if PROBES[access](visitors[who])} == allowed(who)


@pytest.fixture(scope="module")
def outcomes(stack: Stack, visitors: dict[str, Visitor]) -> dict[str, object]:
    """Return the results of the tasks of access_dags.py, after an Op has changed the host of a Connection."""
    redirected = f"{NAME}_redirected"
    created = connection(redirected, host="intended.invalid", password="a password")
    stack.api.http.post("/api/v2/connections", json=created).raise_for_status()
    changed = connection(redirected, host="other.invalid")
    path = f"/api/v2/connections/{redirected}?update_mask=host"
    visitors["Op"].http.patch(path, json=changed).raise_for_status()
    run_id = stack.api.trigger("accesses_everything")
    assert stack.api.wait_for_run("accesses_everything", run_id, timeout=120) == "success"
    results = {
        task: stack.api.xcom("accesses_everything", run_id, task) for task in ("use_all", "read_redirected_connection")
    }
    return {task: json.loads(result) if isinstance(result, str) else result for task, result in results.items()}


@pytest.mark.usefixtures("forgotten")
def test_a_task_accesses_exactly_its_column(stack: Stack, run: str, outcomes: dict[str, list[str]]):
    """By the SDK, and by the account of the monitoring DAG, whose Connection every task can read."""
    assert set(outcomes["use_all"]) == allowed("task")
    log_in = ("monitoring", stack.secret("airflow_monitoring_password"))
    monitoring = Visitor(stack, stack.log_in(*log_in).http, log_in, run)
    assert [access for access in ACCESS.keys() - allowed("task") if PROBES[access](monitoring)] == []


def test_a_dag_file_accesses_exactly_its_column(stack: Stack, run: str):
    """By the database; test_a_dag_file_has_no_access_to_an_api shows that it has no other way."""
    path = "/dags/accesses_everything/details"

    def parsed() -> set[str]:
        return set(json.loads(stack.api.get(path)["doc_md"]))

    wait_until(lambda: "read task logs" in parsed(), timeout=150, what="the DAG file was parsed after a run")
    assert parsed() == allowed("DAG file")


def test_who_may_change_a_connection_gets_its_password(outcomes: dict[str, list[object]]):
    """The API hides it, but a task sends it to the host that an Op has set."""
    assert outcomes["read_redirected_connection"] == ["other.invalid", True]
