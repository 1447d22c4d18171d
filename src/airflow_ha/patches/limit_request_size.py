"""A task whose request is too large fails at once, and its log has the limit and an alternative.

Problem: Airflow 3.3.2 limits no request of a task (XCom, Variable, run conf, trigger kwargs, asset event extra). 40 MB
took both Execution API servers down, and each was sent the request again. An answer that refuses it fails the task like
any error, so the task is retried. If it answers the report of the task's end, the task succeeds without its events.
Patch: refuse an XCom over XCOM_LIMIT or another request over REQUEST_LIMIT in the task process, or, if it grows later,
in the supervisor. The gateway answers 413 to all other cases. Each raises an AirflowFailException in the task.
Applies to: `airflow.sdk.execution_time.comms`, `task_runner`, `airflow.sdk.api.client`.
Upstream issue: none found.
Remove when: `test_limit_request_size.py` reports that upstream refuses such requests itself.
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
    "hint: write the data to object storage or to /opt/airflow/artifacts and pass its path, "
    "or raise XCOM_LIMIT or REQUEST_LIMIT in compose/.env"
)


def size_setting(text: str) -> int:
    """Return the bytes of a size like 4m, as the gateway reads it (compose/gateway/haproxy.cfg)."""
    limit = parse_size(text, UNITS)
    if limit is None:
        raise SettingError(f"cannot read the size {text!r}: it is not a number, or one with k or m")
    return limit


XCOM_LIMIT: Final = size_setting(os.environ.get("XCOM_LIMIT") or "2m")
REQUEST_LIMIT: Final = size_setting(os.environ.get("REQUEST_LIMIT") or "256k")


class RequestTooLargeError(AirflowFailException):  # type: ignore[misc]  # Airflow is untyped here
    """A task's request exceeds the limit; a retry would not be smaller."""


def size_error(request_name: str, length: int, limit: int) -> str:
    """Return the error message for the task's log."""
    return f"cannot send {request_name}: it has {length:,} bytes, more than the limit of {limit:,}. {ADVICE}"


def message_name(body: dict[str, Any] | None) -> str:
    """Return a readable name of a message, such as `SetXCom return_value`."""
    body = body or {}
    return " ".join(str(body[key]) for key in ("type", "key", "dag_id") if body.get(key)) or "a request"


_as_bytes: Any = _RequestFrame.as_bytes


def as_bytes(self: _RequestFrame) -> bytearray:
    """Encode a message of the task process to its supervisor.

    Raises:
        RequestTooLargeError: The message exceeds the limit.
    """
    frame: bytearray = _as_bytes(self)
    limit = XCOM_LIMIT if self.body and self.body.get("type") == "SetXCom" else REQUEST_LIMIT
    if len(frame) > limit:
        raise RequestTooLargeError(size_error(message_name(self.body), len(frame), limit))
    return frame


_send: Any = Client.send


def send(self: Client, request: httpx.Request, **options: Any) -> httpx.Response:
    """Send a request as httpx does; answer a body over the limit like the gateway, without sending it."""
    length = int(request.headers.get("content-length", 0))
    limit = XCOM_LIMIT if "/xcoms/" in request.url.path else REQUEST_LIMIT
    if length > limit:
        message = size_error(f"{request.method} {request.url.path}", length, limit)
        detail = {"reason": "request_too_large", "message": message}
        answer = httpx.Response(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, json={"detail": detail}, request=request)
        raise_on_4xx_5xx(answer)
    response: httpx.Response = _send(self, request, **options)
    return response


_from_frame: Any = CommsDecoder._from_frame


def from_frame(self: CommsDecoder[Any, Any], frame: Any) -> Any:
    """Decode an answer of the supervisor.

    Raises:
        RequestTooLargeError: The supervisor or the gateway refused the request's size.
    """
    try:
        return _from_frame(self, frame)
    except AirflowRuntimeError as error:
        detail = error.error.detail or {}
        if detail.get("status_code") != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            raise
        raise RequestTooLargeError(message_of(detail.get("detail")) or str(error)) from error


def message_of(answer: Any) -> str:
    """Return the message in a refusal's JSON, from the gateway or from `send`; empty if there is none."""
    detail = answer.get("detail") if isinstance(answer, dict) else None
    return str(detail.get("message", "")) if isinstance(detail, dict) else str(detail or "")


def check_final_report(run: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
    """Wrap upstream's run of a task: if its final report (events, kwargs) is too large, the task failed."""

    def run_and_check(ti: Any, context: Any, log: Any) -> tuple[Any, ...]:
        state, message, error = run(ti, context, log)
        length = len(message.model_dump_json()) if message is not None else 0
        if length <= REQUEST_LIMIT:
            return state, message, error
        refused = RequestTooLargeError(
            size_error(message_name(message.model_dump(include={"type"})), length, REQUEST_LIMIT)
        )
        log.error("Task failed with exception", exc_info=refused)
        return task_runner.TaskInstanceState.FAILED, task_runner._terminal_failure(ti), refused

    return run_and_check


def apply() -> None:
    """Refuse requests over the limits."""
    frame: Any = _RequestFrame
    frame.as_bytes = as_bytes
    Client.send = send
    CommsDecoder._from_frame = from_frame
    task_runner._run_task_and_map_outcome = check_final_report(task_runner._run_task_and_map_outcome)
