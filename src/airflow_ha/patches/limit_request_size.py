"""A task whose request is too large fails at once, with the limit and what to use instead in its log.

Problem: in Airflow 3.3.2 nothing limits what a task sends (an XCom, a Variable, the conf of a run, a trigger's kwargs,
the extra of an asset event): 40 MB took both Execution API servers down, and were sent again to each. An answer that
refuses them fails the task like any other error, so it is retried; one to the report of the task's end is not even
seen, and the task succeeds without its events.
Patch: an XCom over XCOM_LIMIT, another request over REQUEST_LIMIT is refused in the task's process; if it grows later,
in the supervisor; the gateway's 413 remains for all else. Each raises an AirflowFailException in the task.
Applies to: `airflow.sdk.execution_time.comms`, `task_runner`, `airflow.sdk.api.client`.
Upstream issue: none found.
Remove when: `test_limit_request_size.py` says that upstream refuses such requests itself.
"""

from __future__ import annotations

import os
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import httpx
from airflow.sdk.api.client import Client, raise_on_4xx_5xx
from airflow.sdk.exceptions import AirflowFailException, AirflowRuntimeError
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import CommsDecoder, _RequestFrame

from airflow_ha.setting_error import SettingError
from airflow_ha.sizes import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable

UNITS: Final = {"": 1, "k": 1_000, "m": 1_000_000}
ADVICE: Final = (
    "hint: write the data to object storage or to /opt/airflow/artifacts, and pass on its path; "
    "or raise XCOM_LIMIT or REQUEST_LIMIT in compose/.env"
)


def size(text: str) -> int:
    """Return the bytes of a size like 4m, as the gateway reads it (compose/gateway/haproxy.cfg)."""
    limit = parse_size(text, UNITS)
    if limit is None:
        raise SettingError(f"cannot read the size {text!r}: it is not a number, or one with k or m")
    return limit


XCOM_LIMIT: Final = size(os.environ.get("XCOM_LIMIT") or "2m")
LIMIT: Final = size(os.environ.get("REQUEST_LIMIT") or "256k")


class RequestTooLargeError(AirflowFailException):  # type: ignore[misc]  # Airflow is untyped here
    """A request of a task is larger than the limit: another try would not be smaller."""


def too_large(what: str, length: int, limit: int) -> str:
    """Return the sentence for the task's log."""
    return f"cannot send {what}: it has {length:,} bytes, more than the limit of {limit:,}. {ADVICE}"


def described(body: dict[str, Any] | None) -> str:
    """Return a message's name for a reader: `SetXCom return_value`."""
    body = body or {}
    return " ".join(str(body[key]) for key in ("type", "key", "dag_id") if body.get(key)) or "a request"


_as_bytes: Any = _RequestFrame.as_bytes


def as_bytes(self: _RequestFrame) -> bytearray:
    """As upstream's: a message of the task's process to its supervisor.

    Raises:
        RequestTooLargeError: It is larger than the limit.
    """
    frame: bytearray = _as_bytes(self)
    limit = XCOM_LIMIT if self.body and self.body.get("type") == "SetXCom" else LIMIT
    if len(frame) > limit:
        raise RequestTooLargeError(too_large(described(self.body), len(frame), limit))
    return frame


_send: Any = Client.send


def send(self: Client, request: httpx.Request, **options: Any) -> httpx.Response:
    """As httpx's; a body over the limit gets the gateway's answer, without being sent."""
    length = int(request.headers.get("content-length", 0))
    limit = XCOM_LIMIT if "/xcoms/" in request.url.path else LIMIT
    if length > limit:
        sentence = too_large(f"{request.method} {request.url.path}", length, limit)
        detail = {"reason": "request_too_large", "message": sentence}
        answer = httpx.Response(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, json={"detail": detail}, request=request)
        raise_on_4xx_5xx(answer)
    response: httpx.Response = _send(self, request, **options)
    return response


_from_frame: Any = CommsDecoder._from_frame


def from_frame(self: CommsDecoder[Any, Any], frame: Any) -> Any:
    """As upstream's: an answer of the supervisor.

    Raises:
        RequestTooLargeError: The supervisor or the gateway refused the request for its size.
    """
    try:
        return _from_frame(self, frame)
    except AirflowRuntimeError as error:
        detail = error.error.detail or {}
        if detail.get("status_code") != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            raise
        raise RequestTooLargeError(message_of(detail.get("detail")) or str(error)) from error


def message_of(answer: Any) -> str:
    """Return the sentence in a refusal's JSON, of the gateway's or of ours; empty if there is none."""
    detail = answer.get("detail") if isinstance(answer, dict) else None
    return str(detail.get("message", "")) if isinstance(detail, dict) else str(detail or "")


def ends_that_can_be_reported(run: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
    """Wrap upstream's run of a task: one whose report of its end (events, kwargs) is too large has failed."""

    def run_and_check(ti: Any, context: Any, log: Any) -> tuple[Any, ...]:
        state, message, error = run(ti, context, log)
        length = len(message.model_dump_json()) if message is not None else 0
        if length <= LIMIT:
            return state, message, error
        refused = RequestTooLargeError(too_large(described(message.model_dump(include={"type"})), length, LIMIT))
        log.error("Task failed with exception", exc_info=refused)
        return task_runner.TaskInstanceState.FAILED, task_runner._terminal_failure(ti), refused

    return run_and_check


def apply() -> None:
    """Refuse requests over the limits."""
    frame: Any = _RequestFrame
    frame.as_bytes = as_bytes
    Client.send = send
    CommsDecoder._from_frame = from_frame
    task_runner._run_task_and_map_outcome = ends_that_can_be_reported(task_runner._run_task_and_map_outcome)
