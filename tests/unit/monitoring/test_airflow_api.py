"""The API client logs in rarely, reads complete lists and limits every wait."""

from __future__ import annotations

import json
import os
import stat
import time

import httpx
import pytest

from airflow_ha.monitoring import airflow_api
from airflow_ha.monitoring.airflow_api import Account, AirflowApi, AirflowApiError

RIGHT = "right"


class Airflow:
    """A fake API server that counts the log-ins."""

    def __init__(self):
        self.requests = []
        self.tokens = 0
        self.valid = set()
        self.logins = []
        self.troubles = []
        self.things = list(range(250))

    def __call__(self, request):
        self.requests.append(request)
        if self.troubles:
            trouble = self.troubles.pop(0)
            if isinstance(trouble, httpx.Response):
                return trouble
            raise trouble
        if request.url.path == "/auth/token":
            self.logins.append(json.loads(request.content))
            if self.logins[-1]["password"] != RIGHT:
                return httpx.Response(401, json={"detail": "Invalid credentials"})
            self.tokens += 1
            self.valid.add(f"token-{self.tokens}")
            return httpx.Response(201, json={"access_token": f"token-{self.tokens}"})
        if request.headers["Authorization"].removeprefix("Bearer ") not in self.valid:
            return httpx.Response(401, json={"detail": "Not authenticated"})
        limit, offset = int(request.url.params.get("limit", 50)), int(request.url.params.get("offset", 0))
        return httpx.Response(
            200, json={"things": self.things[offset : offset + limit], "total_entries": len(self.things)}
        )


@pytest.fixture
def airflow():
    return Airflow()


@pytest.fixture
def session(airflow, tmp_path):
    """Return a new session, as in a new process."""
    waits = []

    def session(password=RIGHT, **options):
        transport = httpx.MockTransport(airflow)
        return AirflowApi(
            Account("http://gateway:8080", "monitoring", password),
            directory=tmp_path, transport=transport, sleep=waits.append, **options,
        )  # fmt: skip

    session.waits = waits
    return session


def test_all_processes_share_one_log_in(airflow, session):
    for _ in range(3):
        session().get("/things")
    assert airflow.logins == [{"username": "monitoring", "password": "right"}]


def test_token_file_is_readable_by_its_user_only(session, tmp_path):
    session().get("/things")
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text() == "token-1"


def test_default_token_directory_is_private(monkeypatch, tmp_path, airflow):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    api = AirflowApi(Account("http://g", "monitoring", "right"), transport=httpx.MockTransport(airflow))
    api.get("/things")
    api.close()
    (directory,) = tmp_path.iterdir()
    assert directory.name == f"airflow-ha-monitoring-{os.geteuid()}"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_token_file_that_is_a_symlink_is_not_read(session, tmp_path):
    session().get("/things")
    (file,) = tmp_path.iterdir()
    target = tmp_path / "elsewhere"
    file.rename(target)
    file.symlink_to(target)
    assert session()._token is None


def test_without_a_token_directory_every_process_logs_in(airflow, monkeypatch):
    monkeypatch.setattr(airflow_api, "shared_directory", lambda _: None)
    for _ in range(2):
        AirflowApi(Account("http://g", "monitoring", "right"), transport=httpx.MockTransport(airflow)).get("/things")
    assert len(airflow.logins) == 2


def test_missing_token_directory_is_no_failure(airflow, tmp_path):
    api = AirflowApi(
        Account("http://g", "m", "right"), directory=tmp_path / "gone", transport=httpx.MockTransport(airflow)
    )
    assert api.count("/things") == 250


def test_refused_token_is_replaced_by_one_log_in(airflow, session):
    session().get("/things")
    airflow.valid.clear()
    assert session().get("/things")["total_entries"] == 250
    session().get("/things")
    assert len(airflow.logins) == 2


def test_token_refused_after_log_in_is_an_error(airflow, session):
    airflow.troubles = [httpx.Response(201, json={"access_token": "bad"})]
    with pytest.raises(AirflowApiError, match="/things: status 401"):
        session().get("/things")
    assert len(airflow.requests) == 2


def test_another_password_does_not_use_the_stored_token(airflow, session):
    session().get("/things")
    with pytest.raises(AirflowApiError, match=r"as monitoring.*ops/stack up"):
        session("wrong").get("/things")


def test_too_many_log_ins_are_not_retried(airflow, session):
    airflow.troubles = [httpx.Response(429)]
    with pytest.raises(AirflowApiError, match="429"):
        session().get("/things")
    assert len(airflow.requests) == 1


def test_list_is_read_page_by_page(airflow, session):
    entries, more = session().pages("/things", "things", most=10, state="failed")
    assert (entries, more) == (airflow.things, False)
    pages = [dict(request.url.params) for request in airflow.requests[1:]]
    assert pages == [{"state": "failed", "limit": "100", "offset": str(offset)} for offset in (0, 100, 200)]


def test_list_that_is_too_long_is_truncated_and_marked(airflow, session):
    entries, more = session().pages("/things", "things", most=2)
    assert (entries, more) == (airflow.things[:200], True)


@pytest.mark.parametrize("count", [0, 100, 200])
def test_list_of_full_pages_is_not_marked_as_truncated(airflow, session, count):
    airflow.things = list(range(count))
    assert session().pages("/things", "things", most=2) == (airflow.things, False)


def test_list_that_shrinks_during_the_read_terminates(airflow, session):
    airflow.troubles = [
        httpx.Response(201, json={"access_token": "t"}),
        httpx.Response(200, json={"things": [1], "total_entries": 2}),
        httpx.Response(200, json={"things": [], "total_entries": 2}),
    ]
    assert session().pages("/things", "things", most=9) == ([1], False)


def test_count_reads_one_entry(airflow, session):
    assert session().count("/things", state=["queued", "running"]) == 250
    params = airflow.requests[-1].url.params
    assert (params["limit"], params.get_list("state")) == ("1", ["queued", "running"])


@pytest.mark.parametrize(
    "trouble",
    [httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("cut"), httpx.Response(503)],
    ids=["refused", "slow", "cut", "no server behind the gateway"],
)
def test_transient_server_failure_is_retried(airflow, session, trouble):
    airflow.troubles = [trouble]
    assert session().count("/things") == 250
    assert session.waits == [airflow_api.RETRY_SECONDS]


@pytest.mark.parametrize(("trouble", "reason"), [(httpx.ConnectError("refused"), "ConnectError refused"), (502, "502")])
def test_lasting_server_failure_is_an_error_with_its_reason(airflow, session, monkeypatch, trouble, reason):
    clock = [0.0]
    monkeypatch.setattr(airflow_api.time, "monotonic", lambda: clock[0])
    api = session(limit=5.0)
    api._sleep = lambda seconds: clock.__setitem__(0, clock[0] + seconds)
    airflow.troubles = [httpx.Response(trouble) if isinstance(trouble, int) else trouble for _ in range(99)]
    with pytest.raises(AirflowApiError, match=f"POST http://gateway:8080/auth/token: .*{reason}"):
        api.get("/things")
    assert clock[0] <= 5


def test_all_requests_share_one_limit(airflow, session, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(airflow_api.time, "monotonic", lambda: clock[0])
    api = session(limit=5.0)
    api.get("/things")
    clock[0] = 5.1
    with pytest.raises(AirflowApiError, match=r"GET /api/v2/things: .* 5 s"):
        api.get("/things")


def test_request_timeout_does_not_exceed_the_shared_limit(airflow, session):
    session(limit=3.0).get("/things")
    timeout = airflow.requests[0].extensions["timeout"]
    assert timeout["connect"] <= airflow_api.CONNECT_TIMEOUT
    assert 0 < timeout["read"] <= 3


def test_silent_server_costs_the_limit(tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as frozen:
        url = f"http://127.0.0.1:{frozen.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(AirflowApiError, match="ReadTimeout"):
            AirflowApi(Account(url, "m", "p"), directory=tmp_path, limit=1.0).get("/things")
        assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (httpx.Response(403, text="Forbidden"), "status 403: Forbidden"),
        (httpx.Response(200, text="<html>"), "'<html>'"),
        (httpx.Response(200, json=[1]), "JSON object"),
    ],
    ids=["refused", "a page", "a list"],
)
def test_invalid_response_is_an_error_with_the_path(airflow, session, response, reason):
    session().get("/things")
    airflow.troubles = [response]
    with pytest.raises(AirflowApiError, match=f"/things: .*{reason}"):
        session().get("/things")
