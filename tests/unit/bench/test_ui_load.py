"""Clients request every page in turn, and their responses are counted."""

from __future__ import annotations

import threading

import httpx

from ops.bench.ui_load import PAGES, request_pages, ui_traffic


def test_clients_request_all_pages_with_their_headers():
    requests: list[tuple[str, str]] = []
    all_requested = threading.Event()

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append((request.url.raw_path.decode(), request.headers["Authorization"]))
        if len({path for path, _ in list(requests)}) == len(PAGES):
            all_requested.set()
        return httpx.Response(200)

    with ui_traffic("http://a", {"Authorization": "Bearer t"}, 3, httpx.MockTransport(answer)) as responses:
        assert all_requested.wait(10)
    assert {path for path, _ in requests} == set(PAGES)
    assert {token for _, token in requests} == {"Bearer t"}
    assert (responses.failed, len(responses.seconds)) == (0, len(requests))


def test_error_status_and_no_answer_are_failed_requests():
    failed = threading.Event()
    answers = iter([httpx.Response(500), httpx.ReadTimeout("slow"), httpx.Response(404)])

    def answer(request: httpx.Request) -> httpx.Response:
        outcome = next(answers, None)
        if outcome is None:
            failed.set()
            return httpx.Response(200)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    with ui_traffic("http://a", {}, 1, httpx.MockTransport(answer)) as responses:
        assert failed.wait(10)
    assert responses.failed == 3


def test_client_stops_when_its_time_is_up():
    transport = httpx.MockTransport(lambda request: httpx.Response(200))
    responses = request_pages(
        lambda: httpx.Client(base_url="http://a", transport=transport), 0, threading.Event(), seconds=0.05
    )
    assert responses.seconds
    assert not responses.failed
