"""The door to the pages: who has no password, another site and another host name get nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.images.doors import PAGES, PagesDoor, pages_with

FAILURES = 10
WITH_PASSWORD = [page for page in PAGES if page != "grafana"]
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def door(images, tmp_path_factory) -> Iterator[PagesDoor]:
    settings = {"TRUSTED_PROXIES": "0.0.0.0/0", "PUBLIC_HOSTS": "pages.example"}
    with pages_with(images, tmp_path_factory.mktemp("pages"), settings) as running:
        yield running


def address() -> str:
    return f"10.0.0.{next(numbers)}"


@pytest.mark.parametrize("page", WITH_PASSWORD)
def test_a_page_needs_its_password(door, page):
    other = "observability" if page == "flower" else "flower"
    for password in ("", "wrong", other):
        with door.client(page, password, **{"X-Forwarded-For": address()}) as http:
            answer = http.get("/headers")
        assert (answer.status_code, "x-forwarded-for" in answer.text) == (401, False)
    with door.client(page) as http:
        answer = http.get("/headers")
    # The Slack stub has no use for the password.
    assert ("authorization" in answer.json()) == (page != "slack-stub")


def test_grafana_has_its_own_log_in(door):
    with door.client("grafana", "") as http:
        assert http.get("/x").status_code == 200


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:8080", "Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_another_site_cannot_change_anything(door, page, headers):
    with door.client(page, **headers) as http:
        answers = [http.request(method, "/api/v2/silences", json={}) for method in ("POST", "PUT", "DELETE", "PATCH")]
    assert {answer.status_code for answer in answers} == {403}


@pytest.mark.parametrize("page", PAGES)
def test_the_page_itself_and_programs_can_change_things(door, page):
    with door.client(page) as program:
        assert program.post("/x", json={}).status_code == 200
        own = {"Origin": str(program.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}
        assert program.delete("/x", headers=own).status_code == 200
        behind_tls = {"Origin": "https://pages.example", "Host": "pages.example"}
        assert program.post("/x", json={}, headers=behind_tls).status_code == 200


@pytest.mark.parametrize("page", PAGES)
def test_another_host_name_is_refused(door, page):
    with door.client(page) as http:
        answers = {host: http.get("/x", headers={"Host": host}).status_code
                   for host in ("evil.example", "localhost", "127.0.0.1:9", "[::1]", "PAGES.example:1")}  # fmt: skip
    assert answers.pop("evil.example") == 421
    assert set(answers.values()) == {200}


@pytest.mark.parametrize("page", PAGES)
def test_profiling_data_and_large_bodies_are_refused(door, page):
    with door.client(page) as http:
        assert http.get("/debug/pprof/heap").status_code == 404
        assert http.get("/%64ebug/pprof/heap").status_code == 404
        assert http.post("/x", content=b"x" * 4_000_001).status_code == 413
        assert http.post("/x", content=iter([b"x"])).status_code == 411


@pytest.mark.parametrize("page", PAGES)
def test_no_page_gets_or_sets_cookies_of_airflow(door, page):
    cookies = {"Cookie": "_token=secret; grafana_session=g; session=secret"}
    with door.client(page, **cookies) as http:
        answer = http.get("/headers")
    assert "secret" not in answer.text
    assert (answer.json().get("cookie") == "grafana_session=g") == (page == "grafana")
    assert ("Set-Cookie" in answer.headers) == (page == "grafana")
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


def test_an_address_that_guesses_a_pages_password_is_refused(door):
    client = {"X-Forwarded-For": address()}
    with door.client("prometheus", "wrong", **client) as guessing:
        statuses = [guessing.get("/x").status_code for _ in range(FAILURES + 1)]
    assert statuses == [401] * FAILURES + [429]
    for page, status in (("prometheus", 429), ("alertmanager-1", 429)):
        with door.client(page, **client) as http:
            assert http.get("/x").status_code == status
    with door.client("prometheus", **{"X-Forwarded-For": address()}) as http:
        assert http.get("/x").status_code == 200


def test_requests_without_a_password_are_no_failures(door):
    with door.client("prometheus", "", **{"X-Forwarded-For": address()}) as http:
        assert {http.get("/x").status_code for _ in range(2 * FAILURES)} == {401}


def test_a_page_that_does_not_run_answers_503(door):
    with door.client("jaeger") as http:
        assert http.get("/x").status_code == 503
