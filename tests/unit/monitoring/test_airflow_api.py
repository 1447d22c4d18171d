"""The client: few log-ins, whole lists, and an end to every wait."""

from __future__ import annotations

import json
import os
import stat
import time

import httpx
import pytest

from airflow_ha.monitoring import airflow_api
from airflow_ha.monitoring.airflow_api import AirflowApi, AirflowApiError

RIGHT = "right"


class Airflow:
    """Answers as Airflow does, and counts the log-ins."""

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
    """A new process's session, each time."""
    waits = []

    def session(password=RIGHT, **options):
        transport = httpx.MockTransport(airflow)
        return AirflowApi(
            "http://gateway:8080", "monitoring", password,
            directory=tmp_path, transport=transport, sleep=waits.append, **options,
        )  # fmt: skip

    session.waits = waits
    return session


def test_it_logs_in_once_for_all_processes(airflow, session):
    for _ in range(3):
        session().get("/things")
    assert airflow.logins == [{"username": "monitoring", "password": "right"}]


def test_the_token_is_kept_where_only_this_user_can_read_it(session, tmp_path):
    session().get("/things")
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text() == "token-1"


def test_by_default_that_is_a_private_directory(monkeypatch, tmp_path, airflow):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    api = AirflowApi("http://g", "monitoring", "right", transport=httpx.MockTransport(airflow))
    api.get("/things")
    api.close()
    (directory,) = tmp_path.iterdir()
    assert directory.name == f"airflow-ha-monitoring-{os.geteuid()}"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_token_that_is_a_link_to_elsewhere_is_not_read(session, tmp_path):
    session().get("/things")
    (file,) = tmp_path.iterdir()
    target = tmp_path / "elsewhere"
    file.rename(target)
    file.symlink_to(target)
    assert session()._token is None


def test_where_nothing_can_be_kept_every_process_logs_in(airflow, monkeypatch):
    monkeypatch.setattr(airflow_api, "shared_directory", lambda _: None)
    for _ in range(2):
        AirflowApi("http://g", "monitoring", "right", transport=httpx.MockTransport(airflow)).get("/things")
    assert len(airflow.logins) == 2


def test_a_directory_that_vanished_is_no_failure(airflow, tmp_path):
    api = AirflowApi("http://g", "m", "right", directory=tmp_path / "gone", transport=httpx.MockTransport(airflow))
    assert api.count("/things") == 250


def test_a_token_that_is_refused_is_replaced_by_one_log_in(airflow, session):
    session().get("/things")
    airflow.valid.clear()
    assert session().get("/things")["total_entries"] == 250
    session().get("/things")
    assert len(airflow.logins) == 2


def test_a_token_that_is_refused_right_after_the_log_in_is_not_tried_for_ever(airflow, session):
    airflow.troubles = [httpx.Response(201, json={"access_token": "bad"})]
    with pytest.raises(AirflowApiError, match="/things: status 401"):
        session().get("/things")
    assert len(airflow.requests) == 2


def test_another_password_is_another_token(airflow, session):
    session().get("/things")
    with pytest.raises(AirflowApiError, match=r"refuses the log-in of monitoring.*up sets both anew"):
        session("wrong").get("/things")


def test_too_many_log_ins_are_said_and_not_added_to(airflow, session):
    airflow.troubles = [httpx.Response(429)]
    with pytest.raises(AirflowApiError, match="too many log-ins"):
        session().get("/things")
    assert len(airflow.requests) == 1


def test_a_list_is_read_to_its_end_page_by_page(airflow, session):
    found, more = session().pages("/things", "things", most=10, state="failed")
    assert (found, more) == (airflow.things, False)
    pages = [dict(request.url.params) for request in airflow.requests[1:]]
    assert pages == [{"state": "failed", "limit": "100", "offset": str(offset)} for offset in (0, 100, 200)]


def test_a_list_that_is_too_long_is_cut_and_said(airflow, session):
    found, more = session().pages("/things", "things", most=2)
    assert (found, more) == (airflow.things[:200], True)


@pytest.mark.parametrize("count", [0, 100, 200])
def test_a_list_of_whole_pages_is_not_taken_for_a_longer_one(airflow, session, count):
    airflow.things = list(range(count))
    assert session().pages("/things", "things", most=2) == (airflow.things, False)


def test_a_list_that_shrinks_while_it_is_read_ends(airflow, session):
    airflow.troubles = [
        httpx.Response(201, json={"access_token": "t"}),
        httpx.Response(200, json={"things": [1], "total_entries": 2}),
        httpx.Response(200, json={"things": [], "total_entries": 2}),
    ]
    assert session().pages("/things", "things", most=9) == ([1], False)


def test_counting_reads_one_entry(airflow, session):
    assert session().count("/things", state=["queued", "running"]) == 250
    params = airflow.requests[-1].url.params
    assert (params["limit"], params.get_list("state")) == ("1", ["queued", "running"])


@pytest.mark.parametrize(
    "trouble",
    [httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("cut"), httpx.Response(503)],
    ids=["refused", "slow", "cut", "nobody behind the gateway"],
)
def test_a_server_that_is_away_for_a_moment_is_asked_again(airflow, session, trouble):
    airflow.troubles = [trouble]
    assert session().count("/things") == 250
    assert session.waits == [airflow_api.RETRY_SECONDS]


@pytest.mark.parametrize(("trouble", "said"), [(httpx.ConnectError("refused"), "ConnectError refused"), (502, "502")])
def test_a_server_that_stays_away_is_given_up_with_what_it_said(airflow, session, monkeypatch, trouble, said):
    clock = [0.0]
    monkeypatch.setattr(airflow_api.time, "monotonic", lambda: clock[0])
    api = session(limit=5.0)
    api._sleep = lambda seconds: clock.__setitem__(0, clock[0] + seconds)
    airflow.troubles = [httpx.Response(trouble) if isinstance(trouble, int) else trouble for _ in range(99)]
    with pytest.raises(AirflowApiError, match=f"POST http://gateway:8080/auth/token: .*{said}"):
        api.get("/things")
    assert clock[0] <= 5


def test_all_answers_together_have_an_end(airflow, session, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(airflow_api.time, "monotonic", lambda: clock[0])
    api = session(limit=5.0)
    api.get("/things")
    clock[0] = 5.1
    with pytest.raises(AirflowApiError, match="GET /api/v2/things: 5 s for all answers were not enough"):
        api.get("/things")


def test_one_answer_has_an_end_that_is_no_later_than_that_of_all(airflow, session):
    session(limit=3.0).get("/things")
    timeout = airflow.requests[0].extensions["timeout"]
    assert timeout["connect"] <= airflow_api.CONNECT_TIMEOUT
    assert 0 < timeout["read"] <= 3


def test_a_server_that_never_answers_costs_the_limit(tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as frozen:
        url = f"http://127.0.0.1:{frozen.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(AirflowApiError, match="ReadTimeout"):
            AirflowApi(url, "m", "p", directory=tmp_path, limit=1.0).get("/things")
        assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(403, text="Forbidden"), "status 403: Forbidden"),
        (httpx.Response(200, text="<html>"), "not what Airflow sends: '<html>'"),
        (httpx.Response(200, json=[1]), "not what Airflow sends"),
    ],
    ids=["refused", "a page", "a list"],
)
def test_an_answer_that_is_none_is_said_with_the_path(airflow, session, answer, said):
    session().get("/things")
    airflow.troubles = [answer]
    with pytest.raises(AirflowApiError, match=f"/things: .*{said}"):
        session().get("/things")
