"""The client of Airflow's REST API: one log-in, retries while the stack starts, errors with a hint."""

from __future__ import annotations

import json

import httpx
import pytest

from ops import settings_file
from ops.clients import airflow
from ops.clients.airflow import AirflowClient, Run
from ops.errors import StackError
from ops.project import ROOT, Project

RUN = {"dag_id": "d", "dag_run_id": "r", "state": "running", "start_date": "2026-01-01T00:00:00Z", "duration": None}


def client(handler) -> AirflowClient:
    return AirflowClient("http://airflow", "admin", "x", transport=httpx.MockTransport(handler))


def answering(answers: dict[str, object], seen: list[str] | None = None):
    """Answer paths by their end with JSON or a status; log-ins succeed."""

    def handle(request: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen.append(f"{request.method} {request.url.path}")
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": "t"})
        for end, answer in answers.items():
            if request.url.path.endswith(end):
                return httpx.Response(answer) if isinstance(answer, int) else httpx.Response(200, json=answer)
        return httpx.Response(404, json={"detail": "not found"})

    return handle


def test_two_calls_log_in_once():
    seen: list[str] = []
    api = client(answering({"/dags": {"dags": [], "total_entries": 0}}, seen))
    api.dag_ids()
    api.dag_ids()
    assert seen.count("POST /auth/token") == 1


def test_a_try_without_a_record_has_no_host():
    api = client(answering({"/taskInstances/t/3/tries/2": {"hostname": "one"}}))
    run = Run("d", "r", "running", 0.0, None)
    assert [api.host_of(run, "t", 3, try_number) for try_number in (1, 2)] == ["", "one"]


def test_dag_filters_apply_to_every_page():
    seen: list[httpx.QueryParams] = []

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": "t"})
        seen.append(request.url.params)
        return httpx.Response(200, json={"dags": [{"dag_id": f"d{len(seen)}"}], "total_entries": 2})

    assert client(handle).dag_ids(tags="bench", exclude_stale=False) == ["d1", "d2"]
    assert [(page["tags"], page["exclude_stale"], page["offset"]) for page in seen] == [
        ("bench", "false", "0"),
        ("bench", "false", "1"),
    ]


def test_a_wrong_password_is_reported_with_its_file():
    api = client(lambda _: httpx.Response(401))
    with pytest.raises(StackError, match="cannot log in to Airflow as admin: status 401") as error:
        api.dag_ids()
    assert "airflow_admin_password" in error.value.hint


def test_an_unknown_dag_is_refused_with_the_existing_ones():
    known = {"/api/v2/dags": {"dags": [{"dag_id": "canary_dag"}], "total_entries": 1}}
    with pytest.raises(StackError, match="cannot run nope: Airflow has no DAG of this name") as refused:
        client(answering(known)).trigger("nope")
    assert "canary_dag" in refused.value.hint
    assert "30 s" in refused.value.hint


BROKEN = {"import_errors": [{"filename": "mine.py", "stack_trace": "ImportError: no"}], "total_entries": 1}


@pytest.mark.parametrize(
    ("posted", "reason"),
    [
        (httpx.Response(404, json={"detail": "Dag with dag_id: 'd' not found"}), "Airflow has no DAG of this name"),
        (httpx.Response(400, json={"detail": "Dag with dag_id: 'd' has import errors"}), "its file does not import"),
    ],
)
def test_a_dag_that_does_not_import_is_refused_with_its_file(posted, reason):
    answers = {"/dags/d": {"is_paused": False}, "/dags": {"dags": [], "total_entries": 0}, "/importErrors": BROKEN}

    def handle(request: httpx.Request) -> httpx.Response:
        return posted if request.method == "POST" and request.url.path != "/auth/token" else known(request)

    known = answering(answers)
    with pytest.raises(StackError, match=f"cannot run d: {reason}") as refused:
        client(handle).trigger("d")
    assert "mine.py does not import: ImportError: no" in refused.value.where


def test_a_run_has_the_url_that_users_open(tmp_path):
    project = Project(ROOT, tmp_path)
    project.secrets.mkdir()
    (project.secrets / "airflow_admin_password").write_text("x")
    api = airflow.connect(project, settings_file.read(project))
    assert api.run_url(Run("d", "r", "running", 0.0, None)) == "http://localhost:8080/dags/d/runs/r"


def test_a_call_is_retried_until_the_gateway_has_a_server(monkeypatch):
    monkeypatch.setattr(airflow, "POLL_SECONDS", 0.0)
    answers = iter([503, 503])

    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(next(answers, 0) or 201, json={"access_token": "t", "dags": [], "total_entries": 0})

    assert client(handle).dag_ids() == []


def test_an_unreachable_airflow_is_an_error():
    def handle(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(StackError, match="cannot reach Airflow: refused"):
        client(handle).import_errors()


def test_retries_are_reported(monkeypatch):
    monkeypatch.setattr(airflow, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(airflow, "REPORT_SECONDS", 0.0)
    answers = iter([503])

    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(next(answers, 0) or 201, json={"access_token": "t", "dags": [], "total_entries": 0})

    reports: list[str] = []
    transport = httpx.MockTransport(handle)
    AirflowClient("http://airflow", "admin", "x", report=reports.append, transport=transport).dag_ids()
    assert len(reports) == 1
    assert "503" in reports[0]


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_is_not_valid_any_more_is_renewed_once(status):
    tokens = iter(["old", "new"])

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": next(tokens)})
        # The old token is valid for one request.
        if request.headers["Authorization"] == "Bearer old" and request.url.params["offset"] != "0":
            return httpx.Response(status)
        page = [{"dag_id": f"d{request.url.params['offset']}"}]
        return httpx.Response(200, json={"dags": page, "total_entries": 2})

    assert client(handle).dag_ids() == ["d0", "d1"]


def triggering(*, paused: bool, posted: int, seen: list[str]):
    """Answer as an Airflow with the DAG `d` and every run; a POST of a run gets the status `posted`."""

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(f"{request.method} {request.url.path}")
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": "t"})
        if request.method == "POST":
            return httpx.Response(posted, json={**RUN, "dag_run_id": json.loads(request.content)["dag_run_id"]})
        if "/dagRuns/" in request.url.path:
            return httpx.Response(200, json={**RUN, "dag_run_id": request.url.path.rpartition("/")[2]})
        return httpx.Response(200, json={"dag_id": "d", "is_paused": paused})

    return handle


@pytest.mark.parametrize("paused", [True, False])
def test_trigger_unpauses_only_a_paused_dag(paused):
    seen: list[str] = []
    client(triggering(paused=paused, posted=200, seen=seen)).trigger("d")
    assert ("PATCH /api/v2/dags/d" in seen) is paused


def test_a_run_whose_response_was_lost_is_not_started_twice():
    seen: list[str] = []
    run = client(triggering(paused=False, posted=409, seen=seen)).trigger("d")
    assert run.run_id.startswith("manual__")
    assert seen[-1].startswith("GET /api/v2/dags/d/dagRuns/manual__")


def test_a_dag_id_cannot_lead_to_another_path():
    seen: list[str] = []
    with pytest.raises(StackError, match="cannot run"):
        client(answering({"/api/v2/dags": {"dags": [], "total_entries": 0}}, seen)).trigger("../variables")
    assert "GET /api/v2/variables" not in seen


def test_a_refusal_is_reported_with_its_status():
    with pytest.raises(StackError, match="403"):
        client(answering({"/dagRuns": 403})).newest_success("d")


def test_an_unknown_dag_has_no_successful_run():
    assert client(answering({})).newest_success("d") is None


def test_wait_for_reports_task_states_until_the_run_ends(monkeypatch):
    monkeypatch.setattr(airflow, "POLL_SECONDS", 0.0)
    states = iter(["running", "running", "success"])
    instances = iter(["queued", "running", "success"])

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": "t"})
        if request.url.path.endswith("/taskInstances"):
            instance = {"task_id": "t", "map_index": 3, "state": next(instances)}
            return httpx.Response(200, json={"task_instances": [instance], "total_entries": 1})
        return httpx.Response(200, json={**RUN, "state": next(states)})

    reports: list[str] = []
    run = client(handle).wait_for(Run("d", "r", "queued", 0.0, None), reports.append, timeout=5)
    assert run.state == "success"
    assert reports == ["d: 1 queued", "d: 1 running", "d: 1 success"]


def test_a_run_that_does_not_end_in_time_is_an_error():
    waiting = {
        "/taskInstances": {"task_instances": [{"task_id": "t", "map_index": -1, "state": None}], "total_entries": 1},
        "/dagRuns/r": RUN,
    }
    with pytest.raises(StackError, match="has not ended after 0 s: 1 waiting") as error:
        client(answering(waiting)).wait_for(Run("d", "r", "queued", 0.0, None), print, timeout=0)
    assert error.value.where == "http://airflow/dags/d/runs/r"


def test_an_import_error_has_its_file_and_exception():
    trace = "Traceback (most recent call last):\n  File x\nModuleNotFoundError: No module named 'y'\n"
    answers = {"/importErrors": {"import_errors": [{"filename": "mine.py", "stack_trace": trace}]}}
    assert client(answering(answers)).import_errors() == [
        {"file": "mine.py", "error": "ModuleNotFoundError: No module named 'y'"}
    ]


def test_an_import_reason_ends_before_the_notes():
    trace = "Traceback:\n  raise x\na.b.AirflowTaskTimeout: after 30.0s.\nPlease check\n* https://docs, PID: 7\n"
    assert airflow.import_reason(trace) == "a.b.AirflowTaskTimeout: after 30.0s."
    assert airflow.import_reason("The process was terminated by SIGSEGV\n") == "The process was terminated by SIGSEGV"


def test_ask_returns_the_content_or_none():
    seen: list[str] = []
    api = client(answering({"/pools/p": {"slots": 1}}, seen))
    assert api.ask("GET", "/pools/p") == {"slots": 1}
    assert api.ask("DELETE", "/pools/q", missing=True) is None
    with pytest.raises(StackError, match="404"):
        api.ask("DELETE", "/pools/q")
    empty = AirflowClient("http://airflow", "admin", "x", transport=httpx.MockTransport(no_content))
    assert empty.ask("DELETE", "/pools/p") is None


def no_content(request: httpx.Request) -> httpx.Response:
    if request.url.path == "/auth/token":
        return httpx.Response(201, json={"access_token": "t"})
    return httpx.Response(204)


def test_authorization_has_the_token():
    api = client(answering({"/version": {"version": "3.3.2"}}))
    assert api.authorization() == {"Authorization": "Bearer t"}


def test_a_refused_log_in_names_the_runbook():
    transport = httpx.MockTransport(lambda _: httpx.Response(429, json={"detail": "Too many failed log-ins."}))
    with pytest.raises(StackError, match="after too many failures") as refused:
        AirflowClient("http://airflow", "admin", "x", transport=transport).dag_ids()
    assert "AirflowLogInsRefused.md" in str(refused.value.hint)
