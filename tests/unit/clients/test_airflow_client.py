"""The client of Airflow's REST API: one log-in, patience with a stack that starts, plain words when it fails."""

from __future__ import annotations

import json

import httpx
import pytest

from ops.clients import airflow
from ops.clients.airflow import AirflowClient, Run
from ops.errors import StackError

RUN = {"dag_id": "d", "dag_run_id": "r", "state": "running", "start_date": "2026-01-01T00:00:00Z", "duration": None}


def client(handler) -> AirflowClient:
    return AirflowClient("http://airflow", "admin", "x", transport=httpx.MockTransport(handler))


def answering(answers: dict[str, object], seen: list[str] | None = None):
    """Answers a path's end with JSON, or a status; a log-in always succeeds."""

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


def test_it_logs_in_once():
    seen: list[str] = []
    api = client(answering({"/dags": {"dags": [], "total_entries": 0}}, seen))
    api.dag_ids()
    api.dag_ids()
    assert seen.count("POST /auth/token") == 1


def test_an_attempt_that_airflow_kept_nothing_of_was_given_to_no_machine():
    api = client(answering({"/taskInstances/t/3/tries/2": {"hostname": "one"}}))
    run = Run("d", "r", "running", 0.0, None)
    assert [api.host_of(run, "t", 3, attempt) for attempt in (1, 2)] == ["", "one"]


def test_dags_are_filtered_by_the_api_on_every_page():
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


def test_a_wrong_password_is_said_with_where_the_right_one_is():
    api = client(lambda _: httpx.Response(401))
    with pytest.raises(StackError, match=r"refuses the log-in of admin \(401\)") as error:
        api.dag_ids()
    assert "airflow_admin_password" in error.value.hint


def test_an_unknown_dag_is_refused_with_the_known_ones():
    known = {"/api/v2/dags": {"dags": [{"dag_id": "canary_dag"}], "total_entries": 1}}
    with pytest.raises(StackError, match="there is no DAG 'nope'") as refused:
        client(answering(known)).trigger("nope")
    assert "canary_dag" in refused.value.hint


def test_it_waits_out_a_gateway_that_has_nobody_yet(monkeypatch):
    monkeypatch.setattr(airflow, "POLL_SECONDS", 0.0)
    answers = iter([503, 503])

    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(next(answers, 0) or 201, json={"access_token": "t", "dags": [], "total_entries": 0})

    assert client(handle).dag_ids() == []


def test_an_airflow_that_stays_away_is_said_with_what_to_do():
    def handle(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(StackError, match="cannot be reached: refused"):
        client(handle).import_errors()


def test_it_says_so_while_airflow_does_not_answer(monkeypatch):
    monkeypatch.setattr(airflow, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(airflow, "REPORT_SECONDS", 0.0)
    answers = iter([503])

    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(next(answers, 0) or 201, json={"access_token": "t", "dags": [], "total_entries": 0})

    said: list[str] = []
    AirflowClient("http://airflow", "admin", "x", report=said.append, transport=httpx.MockTransport(handle)).dag_ids()
    assert said == ["Airflow does not answer yet: it answers 503"]


def test_a_token_that_has_run_out_is_renewed_once():
    tokens = iter(["old", "new"])

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": next(tokens)})
        # The old one is good for one request.
        if request.headers["Authorization"] == "Bearer old" and request.url.params["offset"] != "0":
            return httpx.Response(401)
        page = [{"dag_id": f"d{request.url.params['offset']}"}]
        return httpx.Response(200, json={"dags": page, "total_entries": 2})

    assert client(handle).dag_ids() == ["d0", "d1"]


def triggering(*, paused: bool, posted: int, seen: list[str]):
    """Airflow with the DAG `d`; answers a POST of a run with the status given, and knows every run."""

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
def test_a_dag_is_taken_out_of_its_pause_only_if_it_is_in_one(paused):
    seen: list[str] = []
    client(triggering(paused=paused, posted=200, seen=seen)).trigger("d")
    assert ("PATCH /api/v2/dags/d" in seen) is paused


def test_a_run_whose_answer_was_lost_is_not_started_twice():
    seen: list[str] = []
    run = client(triggering(paused=False, posted=409, seen=seen)).trigger("d")
    assert run.run_id.startswith("manual__")
    assert seen[-1].startswith("GET /api/v2/dags/d/dagRuns/manual__")


def test_a_dag_id_cannot_lead_to_another_path():
    seen: list[str] = []
    with pytest.raises(StackError, match="there is no DAG"):
        client(answering({"/api/v2/dags": {"dags": [], "total_entries": 0}}, seen)).trigger("../variables")
    assert "GET /api/v2/variables" not in seen


def test_a_refusal_is_said_with_what_airflow_answered():
    with pytest.raises(StackError, match=r"Airflow refuses \(403\)"):
        client(answering({"/dagRuns": 403})).newest_success("d")


def test_a_dag_that_is_not_there_has_no_success():
    assert client(answering({})).newest_success("d") is None


def test_waiting_for_a_run_reports_its_tasks_and_ends_with_it(monkeypatch):
    monkeypatch.setattr(airflow, "POLL_SECONDS", 0.0)
    states = iter(["running", "running", "success"])
    instances = iter(["queued", "running", "success"])

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": "t"})
        if request.url.path.endswith("/taskInstances"):
            found = {"task_id": "t", "map_index": 3, "state": next(instances)}
            return httpx.Response(200, json={"task_instances": [found], "total_entries": 1})
        return httpx.Response(200, json={**RUN, "state": next(states)})

    said: list[str] = []
    run = client(handle).wait_for(Run("d", "r", "queued", 0.0, None), said.append, timeout=5)
    assert run.state == "success"
    assert said == ["d: 1 queued", "d: 1 running", "d: 1 success"]


def test_a_run_that_does_not_end_in_time_is_said_with_its_page():
    waiting = {
        "/taskInstances": {"task_instances": [{"task_id": "t", "map_index": -1, "state": None}], "total_entries": 1},
        "/dagRuns/r": RUN,
    }
    with pytest.raises(StackError, match="has not ended after 0 s: 1 waiting") as error:
        client(answering(waiting)).wait_for(Run("d", "r", "queued", 0.0, None), print, timeout=0)
    assert error.value.where == "http://airflow/dags/d/runs/r"


def test_an_import_error_is_its_file_and_the_last_line_of_its_trace():
    trace = "Traceback (most recent call last):\n  File x\nModuleNotFoundError: No module named 'y'\n"
    found = {"/importErrors": {"import_errors": [{"filename": "mine.py", "stack_trace": trace}]}}
    assert client(answering(found)).import_errors() == [
        {"file": "mine.py", "error": "ModuleNotFoundError: No module named 'y'"}
    ]


def test_import_reason_is_the_exception_and_not_the_advice_after_it():
    trace = "Traceback:\n  raise x\na.b.AirflowTaskTimeout: after 30.0s.\nPlease look at\n* https://docs, PID: 7\n"
    assert airflow.import_reason(trace) == "a.b.AirflowTaskTimeout: after 30.0s."
    assert airflow.import_reason("The process was ended by SIGSEGV\n") == "The process was ended by SIGSEGV"


def test_any_other_call_is_answered_with_its_content_or_none():
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


def test_another_client_can_be_logged_in_as_this_one():
    api = client(answering({"/version": {"version": "3.3.2"}}))
    assert api.authorization() == {"Authorization": "Bearer t"}
