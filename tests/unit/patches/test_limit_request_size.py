"""A request that is too large is refused where it is created, and fails its task without a retry."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import httpx
import pytest
from airflow.sdk.api.client import Client, ServerResponseError
from airflow.sdk.exceptions import AirflowFailException, AirflowRuntimeError
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import CommsDecoder, SucceedTask, _RequestFrame, _ResponseFrame

from tests.unit.patches.loading import applied

REFUSED = {"detail": {"reason": "request_too_large", "message": "the gateway's message"}}


@pytest.fixture
def limit():
    """The patch, applied for one test."""
    with applied("limit_request_size", Client, _RequestFrame) as patch:
        yield patch


def client(answer) -> tuple[Client, list[int]]:
    """Return a client of the Execution API, and the sizes of the bodies that reach its server."""
    sent: list[int] = []

    def handle(request: httpx.Request) -> httpx.Response:
        sent.append(len(request.read()))
        return answer

    api = Client(base_url=None, dry_run=True, token="", transport=httpx.MockTransport(handle))
    return api, sent


def test_message_over_the_limit_fails_in_the_task_process(limit):
    frame = _RequestFrame(id=1, body={"type": "SetXCom", "key": "return_value", "value": "x" * limit.XCOM_LIMIT})
    with pytest.raises(AirflowFailException, match=r"return_value.*object storage"):
        frame.as_bytes()
    assert _RequestFrame(id=1, body={"type": "SetXCom", "value": "x" * (limit.XCOM_LIMIT - 100)}).as_bytes()
    with pytest.raises(AirflowFailException, match="PutVariable mine"):
        _RequestFrame(id=1, body={"type": "PutVariable", "key": "mine", "value": "x" * limit.REQUEST_LIMIT}).as_bytes()


@pytest.mark.parametrize(("path", "name"), [("xcoms/d/r/t/k", "XCOM_LIMIT"), ("variables/v", "REQUEST_LIMIT")])
def test_body_over_the_limit_is_not_sent(limit, path, name):
    limit_bytes = getattr(limit, name)
    api, sent = client(httpx.Response(201))
    with pytest.raises(ServerResponseError) as refused:
        api.post(path, content="x" * (limit_bytes + 1))
    assert refused.value.response.status_code == 413
    assert api.post(path, content="x" * limit_bytes).status_code == 201
    assert sent == [limit_bytes]


@pytest.mark.usefixtures("limit")
def test_request_refused_by_the_gateway_is_not_resent():
    api, sent = client(httpx.Response(413, json=REFUSED))
    with pytest.raises(ServerResponseError):
        api.post("xcoms/d/r/t/k", content="x")
    assert sent == [1]


def error_frame(status: int, detail: object) -> _ResponseFrame:
    error = {"error": "API_SERVER_ERROR", "detail": {"status_code": status, "message": "m", "detail": detail}}
    return _ResponseFrame(id=1, error={**error, "type": "ErrorResponse"})


def test_refused_size_fails_the_task_without_a_retry(limit):
    decoder = CommsDecoder(socket=None)
    with pytest.raises(limit.RequestTooLargeError, match="the gateway's message"):
        decoder._from_frame(error_frame(413, REFUSED))
    with pytest.raises(AirflowRuntimeError):
        decoder._from_frame(error_frame(409, {"detail": "another"}))


@pytest.mark.parametrize("events", [1, 50_000])
def test_final_report_over_the_limit_fails_the_task(limit, monkeypatch, events):
    event = {"dest_asset_key": {"name": "n", "uri": "u"}, "extra": {"text": "x" * 100}}
    end = SucceedTask(end_date="2026-01-01T00:00:00Z", task_outlets=[], outlet_events=[event] * events)
    run = limit.check_final_report(lambda *_: (task_runner.TaskInstanceState.SUCCESS, end, None))
    ti = SimpleNamespace(end_date=None, rendered_map_index=None)
    state, message, error = run(ti, {}, logging.getLogger("task"))
    if events == 1:
        assert (state, message, error) == ("success", end, None)
    else:
        assert (state, message.state) == ("failed", "failed")
        assert isinstance(error, limit.RequestTooLargeError)


@pytest.mark.parametrize(("text", "size"), [("4m", 4_000_000), ("100k", 100_000), ("123", 123)])
def test_sizes_are_parsed_like_the_gateway(limit, text, size):
    assert limit.size_setting(text) == size


def test_upstream_sends_a_message_of_any_size():
    """If this fails, upstream has a limit: delete limit_request_size and this file."""
    assert len(_RequestFrame(id=1, body={"type": "SetXCom", "value": "x" * 10_000_000}).as_bytes()) > 10_000_000
