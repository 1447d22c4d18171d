"""Client of Airflow's REST API."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

from ops.clients import transport
from ops.errors import FAILURE, StackError
from ops.project import ADMIN
from ops.services import local_url, page_urls

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ops.project import Project

TIMEOUT = 10.0
"""Seconds, for one response."""
UNREACHABLE_SECONDS = 60.0
"""How long a call is retried while the gateway has no healthy server."""
POLL_SECONDS = 1.0
REPORT_SECONDS = 10.0
"""The longest time between two progress reports."""

API = "/api/v2"
USERS_API = "/auth/fab/v1"
"""The paths of Airflow's API, and of that of FAB for users and roles."""
NO_DAG = "Airflow has no DAG of this name"
ENDED = ("success", "failed")
EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Timeout|Exit|Interrupt)\b")
"""Start of the traceback's line with the exception; notes may follow it."""


@dataclass(frozen=True)
class Run:
    """A DAG run."""

    dag_id: str
    run_id: str
    state: str
    started: float
    duration: float | None


def import_reason(traceback: str) -> str:
    """Return the last exception of a traceback without the advice after it, or the last line where there is none."""
    lines = traceback.strip().splitlines()
    return next((line for line in reversed(lines) if EXCEPTION.match(line)), lines[-1] if lines else "")


class AirflowClient:
    """A session with one log-in: FAB refuses more than five in 40 s.

    Args:
        url: The gateway's base URL.
        page_url: The base URL by which users open Airflow; `url` by default.
        user: The account that logs in.
        password: Its password.
        report: Receives progress lines while Airflow does not answer.
        transport: Replaces the network in tests.
    """

    def __init__(
        self,
        url: str,
        user: str,
        password: str,
        *,
        page_url: str = "",
        report: Callable[[str], None] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url
        self._page_url = page_url or url
        self._report = report or (lambda _: None)
        self._credentials = {"username": user, "password": password}
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT, transport=transport)

    def _request(self, method: str, path: str, *, wait: float = UNREACHABLE_SECONDS, **options: Any) -> httpx.Response:
        """Return a response that is no server error, after retries for at most `wait` seconds."""
        started = reported_at = time.monotonic()
        while True:
            try:
                response = self._http.request(method, path, **options)
                if response.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                    return response
                problem = f"status {response.status_code}"
            except httpx.TransportError as error:
                problem = str(error)
            now = time.monotonic()
            if now - started >= wait:
                hint = "check with ./ops/stack status what is not healthy; ./ops/stack up starts the stack"
                raise transport.unreachable("Airflow", problem, where=self.url, hint=hint)
            if now - reported_at >= REPORT_SECONDS:
                self._report(f"Airflow does not answer yet: {problem}")
                reported_at = now
            time.sleep(POLL_SECONDS)

    def _call(
        self, method: str, path: str, *, wait: float = UNREACHABLE_SECONDS, api: str = API, **options: Any
    ) -> httpx.Response:
        """Send a request to an API with a token, and again with a new one when it is not valid any more."""
        is_first = "Authorization" not in self._http.headers
        if is_first:
            response = self._request("POST", "/auth/token", wait=wait, json=self._credentials)
            if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
                raise StackError(
                    "cannot log in to Airflow: the gateway refuses log-ins from this host after too many failures",
                    where=self.url,
                    hint="wait 5 minutes; alerting/runbooks/AirflowLogInsRefused.md has the diagnosis",
                    code=FAILURE,
                )
            if response.status_code != httpx.codes.CREATED:
                raise StackError(
                    f"cannot log in to Airflow as {self._credentials['username']}: status {response.status_code}",
                    where=self.url,
                    hint="write the password into compose/secrets/airflow_admin_password if it was changed in Airflow; "
                    "if it is lost, write a new one there, and ./ops/stack up sets it",
                    code=FAILURE,
                )
            self._http.headers["Authorization"] = f"Bearer {response.json()['access_token']}"
        response = self._request(method, f"{api}{path}", wait=wait, **options)
        # 403 also where a restore has renewed the key of the tokens.
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN) and not is_first:
            del self._http.headers["Authorization"]
            return self._call(method, path, wait=wait, api=api, **options)
        return response

    def _json(self, method: str, path: str, **options: Any) -> Any:
        return self._accepted(self._call(method, path, **options)).json()

    def _accepted(self, response: httpx.Response) -> httpx.Response:
        if response.is_error:
            request = response.request
            raise StackError(
                f"cannot call Airflow: status {response.status_code}: {response.text[:500]}",
                where=f"{request.method} {request.url}",
                hint="run ./ops/stack logs api-server",
                code=FAILURE,
            )
        return response

    def ask(self, method: str, path: str, *, missing: bool = False, **options: Any) -> Any:
        """Return the content of a call that has no method of its own here; None if the response is empty.

        Args:
            method: GET, POST, PATCH or DELETE.
            path: Under the API's own path.
            missing: Whether the object may not exist; the content is None then.
            **options: Of httpx.Client.request; `api`, the API's path, if it is another than API.
        """
        response = self._call(method, path, **options)
        if missing and response.status_code == httpx.codes.NOT_FOUND:
            return None
        self._accepted(response)
        return response.json() if response.content else None

    def authorization(self) -> dict[str, str]:
        """Return the header that authorizes another HTTP client as this one."""
        self.ask("GET", "/version")
        return {"Authorization": self._http.headers["Authorization"]}

    def dag_ids(self, **filters: Any) -> list[str]:
        """Return the ids of all DAGs, or of those that match the API's filters, sorted."""
        dag_ids: list[str] = []
        while True:
            page = self._json("GET", "/dags", params={**filters, "limit": 100, "offset": len(dag_ids)})
            dag_ids += [dag["dag_id"] for dag in page["dags"]]
            if not page["dags"] or len(dag_ids) >= page["total_entries"]:
                return sorted(dag_ids)

    def import_errors(self, *, wait: float = 0) -> list[dict[str, str]]:
        """Return the DAG files that do not import: `file`, and the `error` line of its traceback."""
        errors = self._json("GET", "/importErrors", wait=wait, params={"limit": 100})["import_errors"]
        return [{"file": error["filename"], "error": import_reason(error["stack_trace"])} for error in errors]

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None) -> Run:
        """Start one run of a DAG, and unpause the DAG if it is paused: its run would never start.

        Raises:
            StackError: The DAG does not exist, or its file does not import; the hint lists the existing ones.
        """
        path = dag_path(dag_id)
        response = self._call("GET", path)
        if response.status_code == httpx.codes.NOT_FOUND:
            raise self._not_runnable(dag_id, NO_DAG)
        if self._accepted(response).json()["is_paused"]:
            self._json("PATCH", path, json={"is_paused": False})
        # The client sets the id: if the response is lost, the retry cannot start a second run.
        run_id = f"manual__{datetime.now(UTC).isoformat(timespec='seconds')}_{secrets.token_hex(4)}"
        body = {"dag_run_id": run_id, "logical_date": None, "conf": conf or {}}
        response = self._call("POST", f"{path}/dagRuns", json=body)
        if response.status_code == httpx.codes.CONFLICT:
            return self.run(dag_id, run_id)
        # Airflow keeps the record of a DAG that is no longer in a file: the request above finds it.
        if response.status_code == httpx.codes.NOT_FOUND:
            raise self._not_runnable(dag_id, NO_DAG)
        if response.status_code == httpx.codes.BAD_REQUEST and "has import errors" in response.text:
            raise self._not_runnable(dag_id, "its file does not import")
        return parse_run(self._accepted(response).json())

    def _not_runnable(self, dag_id: str, reason: str) -> StackError:
        """Return the error of a DAG that is in no file, or whose file does not import."""
        try:
            errors = [f"{error['file']} does not import: {error['error']}" for error in self.import_errors()]
        except StackError:
            errors = []
        return StackError(
            f"cannot run {dag_id}: {reason}",
            where="; ".join(errors) or self.url,
            hint=f"use one of: {', '.join(self.dag_ids()) or 'none yet'}; a new file appears within 30 s; "
            "./ops/stack status shows files that do not import",
        )

    def run(self, dag_id: str, run_id: str) -> Run:
        """Return the current state of a run."""
        return parse_run(self._json("GET", run_path(dag_id, run_id)))

    def newest_success(self, dag_id: str) -> Run | None:
        """Return the newest successful run of a DAG; None if it has none, or does not exist."""
        params = {"state": "success", "order_by": "-start_date", "limit": 1}
        response = self._call("GET", f"{dag_path(dag_id)}/dagRuns", params=params)
        if response.status_code == httpx.codes.NOT_FOUND:
            return None
        runs = self._accepted(response).json()["dag_runs"]
        return parse_run(runs[0]) if runs else None

    def has_dag(self, dag_id: str) -> bool:
        """Whether Airflow has parsed the DAG, and it is still in its file."""
        response = self._call("GET", f"/dags/{dag_id}")
        return response.is_success and not response.json().get("is_stale", False)

    def is_paused(self, dag_id: str) -> bool:
        """Whether the DAG is paused; false if Airflow does not know it."""
        response = self._call("GET", f"/dags/{dag_id}")
        return response.is_success and bool(response.json()["is_paused"])

    def task_states(self, run: Run) -> list[tuple[str, str]]:
        """Return name and state of each task instance of a run; a mapped one is `task[3]`."""
        return [(instance_name(instance), instance["state"] or "none") for instance in self.task_instances(run)]

    def task_durations(self, run: Run) -> list[tuple[str, float]]:
        """Return name and seconds of each task instance of a run that has ended."""
        return [
            (instance_name(instance), instance["duration"])
            for instance in self.task_instances(run)
            if instance["duration"] is not None
        ]

    def task_instances(self, run: Run) -> list[dict[str, Any]]:
        """Return all task instances of a run, in the API's form."""
        path = f"{run_path(run.dag_id, run.run_id)}/taskInstances"
        instances: list[dict[str, Any]] = []
        while True:
            page = self._json("GET", path, params={"limit": 100, "offset": len(instances)})
            instances += page["task_instances"]
            if not page["task_instances"] or len(instances) >= page["total_entries"]:
                return instances

    def host_of(self, run: Run, task_id: str, map_index: int, try_number: int) -> str:
        """Return the host name of a try of a mapped task; empty if Airflow has no record of it."""
        instance = f"{run_path(run.dag_id, run.run_id)}/taskInstances/{quote(task_id, safe='')}/{map_index}"
        record = self.ask("GET", f"{instance}/tries/{try_number}", missing=True)
        return str(record["hostname"]) if record else ""

    def result(self, run: Run, task_id: str) -> Any:
        """Return a task's return value; None if it has none."""
        path = f"{run_path(run.dag_id, run.run_id)}/taskInstances/{quote(task_id, safe='')}/xcomEntries/return_value"
        response = self._call("GET", path)
        return response.json()["value"] if response.is_success else None

    def wait_for(self, run: Run, report: Callable[[str], None], *, timeout: float) -> Run:
        """Wait for a terminal state, report each change of the tasks' states, and return the run.

        Args:
            run: The run.
            report: Receives progress lines.
            timeout: Seconds.

        Raises:
            StackError: The run has not ended in time.
        """
        deadline = time.monotonic() + timeout
        reported, reported_at = "", 0.0
        while True:
            now = self.run(run.dag_id, run.run_id)
            summary = summarise([state for _, state in self.task_states(run)])
            if summary != reported or time.monotonic() - reported_at >= REPORT_SECONDS:
                report(f"{run.dag_id}: {summary}")
                reported, reported_at = summary, time.monotonic()
            if now.state in ENDED:
                return now
            if time.monotonic() >= deadline:
                raise StackError(
                    f"cannot complete {run.dag_id}: the run has not ended after {timeout:.0f} s: {summary}",
                    where=self.run_url(run),
                    hint="open the run in Airflow and check what its tasks wait for",
                    code=FAILURE,
                )
            time.sleep(POLL_SECONDS)

    def run_url(self, run: Run) -> str:
        """Return the URL of a run's page."""
        return f"{self._page_url}/dags/{quote(run.dag_id, safe='')}/runs/{quote(run.run_id, safe='')}"


def dag_path(dag_id: str) -> str:
    """Return a DAG's path under /api/v2."""
    return f"/dags/{quote(dag_id, safe='')}"


def run_path(dag_id: str, run_id: str) -> str:
    """Return a run's path under /api/v2."""
    return f"{dag_path(dag_id)}/dagRuns/{quote(run_id, safe='')}"


def parse_run(content: dict[str, Any]) -> Run:
    """Return a run from the API's content."""
    started = content.get("start_date") or content.get("queued_at")
    return Run(
        dag_id=content["dag_id"],
        run_id=content["dag_run_id"],
        state=content["state"],
        started=datetime.fromisoformat(started).timestamp() if started else 0.0,
        duration=content.get("duration"),
    )


def instance_name(instance: dict[str, Any]) -> str:
    """Return `task`, or `task[3]` for a mapped one."""
    index = instance["map_index"]
    return str(instance["task_id"]) if index < 0 else f"{instance['task_id']}[{index}]"


def summarise(states: list[str]) -> str:
    """Return the number of tasks in each state: `3 success, 1 running`."""
    counts = {state: states.count(state) for state in dict.fromkeys(states)}
    parts = [f"{count} {'waiting' if state == 'none' else state}" for state, count in counts.items()]
    return ", ".join(parts) or "no task yet"


def connect(
    project: Project, settings: Mapping[str, str], report: Callable[[str], None] | None = None
) -> AirflowClient:
    """Return a client of this stack's Airflow, through its gateway.

    Args:
        project: The stack.
        settings: Its .env.
        report: Receives progress lines while Airflow does not answer.

    Raises:
        StackError: The admin password is not readable.
    """
    path = project.secrets / "airflow_admin_password"
    try:
        password = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise StackError(
            f"cannot read the admin password: {error.strerror}",
            where=project.shown(path),
            hint="run this as the user who ran ./ops/stack up, which creates it",
        ) from error
    return AirflowClient(local_url(settings), ADMIN, password, page_url=page_urls(settings)["airflow"], report=report)
