"""People use every page in turn, and what they see is counted."""

from __future__ import annotations

import threading

import httpx

from ops.bench.ui_load import PAGES, crowd, visit


def test_all_pages_are_opened_by_each_logged_in_as_told():
    seen: list[tuple[str, str]] = []
    everything = threading.Event()

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.url.raw_path.decode(), request.headers["Authorization"]))
        if len({path for path, _ in list(seen)}) == len(PAGES):
            everything.set()
        return httpx.Response(200)

    with crowd("http://a", {"Authorization": "Bearer t"}, 3, httpx.MockTransport(answer)) as visits:
        assert everything.wait(10)
    assert {path for path, _ in seen} == set(PAGES)
    assert {token for _, token in seen} == {"Bearer t"}
    assert (visits.failed, len(visits.seconds)) == (0, len(seen))


def test_a_refusal_and_no_answer_are_failed_requests():
    failed = threading.Event()
    answers = iter([httpx.Response(500), httpx.ReadTimeout("slow"), httpx.Response(404)])

    def answer(request: httpx.Request) -> httpx.Response:
        one = next(answers, None)
        if one is None:
            failed.set()
            return httpx.Response(200)
        if isinstance(one, Exception):
            raise one
        return one

    with crowd("http://a", {}, 1, httpx.MockTransport(answer)) as visits:
        assert failed.wait(10)
    assert visits.failed == 3


def test_people_leave_by_themselves_after_a_while():
    transport = httpx.MockTransport(lambda request: httpx.Response(200))
    seen = visit("http://a", {}, 0, threading.Event(), transport, stay=0.05)
    assert seen.seconds
    assert not seen.failed
