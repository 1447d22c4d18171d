"""The door to the pages with PAGES_LOG_IN=airflow: a session of Airflow is a log-in, and reaches no page."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest

from tests.images.doors import GRAFANA_HEADER, PAGES, PASSWORDS, PagesDoor, pages_with

FAILURES = 10
BEHIND_A_LOG_IN = [page for page in PAGES if page != "grafana"]
BROWSER = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def door(images, tmp_path_factory) -> Iterator[PagesDoor]:
    settings = {"PAGES_LOG_IN": "airflow", "AIRFLOW_PORT": "8085", "TRUSTED_PROXIES": "0.0.0.0/0"}
    hosts = {"PUBLIC_HOSTS": "pages.example"}
    with pages_with(images, tmp_path_factory.mktemp("pages"), {**settings, **hosts}) as running:
        yield running


def get(door: PagesDoor, page: str, token: str | None, password: str = "", **headers: str) -> httpx.Response:
    """Return the answer to a GET with a session's cookie, with a password, or with none of them."""
    cookie = {} if token is None else {"Cookie": f"other=1; _token={token}; session=secret"}
    with door.client(page, password, **cookie, **headers) as http:
        return http.get("/headers")


def new_token() -> str:
    return f"op-{next(numbers)}.a_b-c"


def asked_about(door: PagesDoor, token: str) -> int:
    """Return how often Airflow was asked about a session."""
    return len([each for each in door.asked() if token in str(each)])


@pytest.fixture(scope="module", autouse=True)
def statuses(door) -> Iterator[Future[list[int]]]:
    """The answers to a session that ends while it is used; other tests run meanwhile."""

    def use_until_refused() -> list[int]:
        statuses: list[int] = []
        deadline = time.monotonic() + 45
        while 401 not in statuses and time.monotonic() < deadline:
            statuses.append(get(door, "prometheus", "once").status_code)
            time.sleep(0.5)
        return statuses

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(use_until_refused)


@pytest.mark.parametrize("page", BEHIND_A_LOG_IN)
def test_a_session_opens_a_page_which_never_sees_it(door, page):
    token = new_token()
    answer = get(door, page, token)
    assert answer.status_code == 200
    assert token not in answer.text
    assert "cookie" not in answer.json()
    with door.client(page) as http:
        by_password = http.get("/headers").json().get("authorization")
    assert answer.json().get("authorization") == by_password, "the page gets its own password either way"


def test_only_the_cookie_is_sent_to_airflow(door):
    token = new_token()
    assert get(door, "prometheus", token, Origin="http://localhost", **{"X-Secret": "1"}).status_code == 200
    questions = [each for each in door.asked() if token in str(each)]
    (method, path, headers) = questions[0]
    assert (method, path) == ("GET", "/api/v2/connections?limit=1")
    assert headers["cookie"] == f"_token={token}"
    assert headers.keys() <= {"accept", "cookie", "host", "user-agent"}


def test_an_accepted_session_is_asked_about_once(door):
    token = new_token()
    assert {get(door, page, token).status_code for page in BEHIND_A_LOG_IN * 3} == {200}
    assert asked_about(door, token) == 1


@pytest.mark.parametrize("page", BEHIND_A_LOG_IN)
@pytest.mark.parametrize("token", ["viewer", "ended", "broken", "", "a b", "x" * 5000, None])
def test_a_session_without_the_right_is_refused(door, page, token):
    answer = get(door, page, token)
    assert (answer.status_code, "x-forwarded-for" in answer.text) == (401, False)
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")


def test_a_refusal_is_not_kept(door):
    before = asked_about(door, "viewer")
    assert {get(door, "prometheus", "viewer").status_code for _ in range(3)} == {401}
    assert asked_about(door, "viewer") == before + 3


def test_a_frozen_airflow_ends_in_the_pages_own_log_in(door):
    started = time.monotonic()
    answer = get(door, "prometheus", "frozen", **BROWSER)
    assert answer.status_code == 401
    assert time.monotonic() - started < 6
    assert get(door, "prometheus", "frozen", PASSWORDS["observability"]).status_code == 200


@pytest.mark.parametrize(
    ("host", "headers", "address"),
    [
        ("localhost:9090", {}, "http://localhost:8085/auth/login/"),
        ("pages.example", {"X-Forwarded-Proto": "https"}, "https://pages.example:8085/auth/login/"),
        ("[::1]:9090", {}, "http://[::1]:8085/auth/login/"),
    ],
)
@pytest.mark.parametrize("token", ["ended", None])
def test_a_browser_without_a_session_goes_to_airflow(door, token, host, headers, address):
    answer = get(door, "flower", token, Host=host, **BROWSER, **headers)
    assert (answer.status_code, answer.headers["Location"]) == (302, address)


def test_a_browser_that_airflow_cannot_help_gets_the_challenge(door):
    for token in ("viewer", "broken"):
        assert get(door, "flower", token, **BROWSER).status_code == 401
    with door.client("flower", "", **BROWSER) as http:
        assert http.post("/headers").status_code == 401


def test_the_address_of_airflow_counts_for_its_own_host(images, tmp_path):
    settings = {
        "PAGES_LOG_IN": "airflow",
        "AIRFLOW_URL": "https://Airflow.example:444/",
        "PUBLIC_HOSTS": "airflow.example",
    }
    with pages_with(images, tmp_path, settings) as door:
        answer = get(door, "flower", None, Host="airflow.example:5555", **BROWSER)
        assert answer.headers["Location"] == "https://Airflow.example:444/auth/login/"
        assert get(door, "flower", None, Host="localhost", **BROWSER).status_code == 401


def test_a_session_without_the_setting_is_no_log_in(images, tmp_path):
    with pages_with(images, tmp_path, {}) as door:
        assert {get(door, page, "op", **BROWSER).status_code for page in BEHIND_A_LOG_IN} == {401}
        assert GRAFANA_HEADER.lower() not in get(door, "grafana", "op").json()
        assert door.asked() == []


def test_a_wrong_password_beside_a_session_is_refused_and_counts(door):
    client = {"X-Forwarded-For": "10.2.0.1"}
    token = new_token()
    statuses = [get(door, "prometheus", token, "wrong", **client).status_code for _ in range(FAILURES + 1)]
    assert statuses == [401] * FAILURES + [429]
    assert asked_about(door, token) == 0
    assert get(door, "prometheus", token, **client).status_code == 200, "the session needs no password"


@pytest.mark.parametrize("page", PAGES)
def test_another_site_cannot_use_a_session(door, page):
    token = new_token()
    with door.client(page, "", Cookie=f"_token={token}") as http:
        for headers in ({"Origin": "http://localhost:8080"}, {"Sec-Fetch-Site": "same-site"}):
            assert http.post("/api/v2/silences", json={}, headers=headers).status_code == 403
        assert http.get("/x", headers={"Host": "evil.example"}).status_code == 421
    assert asked_about(door, token) == 0


def test_grafana_gets_a_reader_from_the_door_only(door):
    forged = {GRAFANA_HEADER: "admin"}
    assert get(door, "grafana", new_token(), **forged).json()[GRAFANA_HEADER.lower()] == "airflow"
    for token, headers in (
        (None, {}),
        ("viewer", {}),
        (new_token(), {"Authorization": "Bearer a-token-of-grafana"}),
    ):
        answer = get(door, "grafana", token, **headers, **forged)
        assert (answer.status_code, GRAFANA_HEADER.lower() in answer.json()) == (200, False)


def test_grafanas_own_session_stays_that_user(door):
    cookie = {"Cookie": f"_token={new_token()}; grafana_session=of-an-admin"}
    with door.client("grafana", "", **cookie) as http:
        answer = http.get("/headers").json()
    assert answer["cookie"] == "grafana_session=of-an-admin"
    assert GRAFANA_HEADER.lower() not in answer


def test_a_browser_without_a_session_gets_grafanas_log_in(door):
    assert get(door, "grafana", None, **BROWSER).status_code == 200


def test_a_session_that_ends_while_it_is_used_is_refused(statuses):
    first, *_, last = statuses.result()
    assert (first, last) == (200, 401)
