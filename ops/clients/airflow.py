"""Airflow's REST API, as far as operating the stack needs it."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

from ops.errors import FAILURE, StackError
from ops.project import ADMIN
from ops.services import local_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ops.project import Project

TIMEOUT = 10.0
"""Seconds for one answer."""
UNREACHABLE_SECONDS = 60.0
"""How long a call goes on trying while the gateway has nobody to hand it to."""
POLL_SECONDS = 1.0
REPORT_SECONDS = 10.0
"""Never longer without a word."""

ENDED = ("success", "failed")
EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Timeout|Exit|Interrupt)\b")
"""How the line of a traceback begins that has the exception; advice or notes may follow it."""


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
    """A session that logs in once: FAB refuses more than five log-ins in 40 s.

    Args:
        url: Where the gateway listens.
        user: Who logs in.
        password: Their password.
        report: Hears about it while Airflow does not answer.
        transport: For tests: answers instead of the network.
    """

    def __init__(
        self,
        url: str,
        user: str,
        password: str,
        *,
        report: Callable[[str], None] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url
        self._report = report or (lambda _: None)
        self._credentials = {"username": user, "password": password}
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT, transport=transport)

    def _request(self, method: str, path: str, *, wait: float = UNREACHABLE_SECONDS, **options: Any) -> httpx.Response:
        """An answer that is not a server's failure, within `wait` seconds of trying."""
        started = said_at = time.monotonic()
        while True:
            try:
                response = self._http.request(method, path, **options)
                if response.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                    return response
                problem = f"it answers {response.status_code}"
            except httpx.TransportError as error:
                problem = str(error)
            now = time.monotonic()
            if now - started >= wait:
                raise StackError(
                    f"Airflow cannot be reached: {problem}",
                    where=self.url,
                    hint="./ops/stack status shows what is not healthy; ./ops/stack up starts the stack",
                    code=FAILURE,
                )
            if now - said_at >= REPORT_SECONDS:
                self._report(f"Airflow does not answer yet: {problem}")
                said_at = now
            time.sleep(POLL_SECONDS)

    def _call(self, method: str, path: str, *, wait: float = UNREACHABLE_SECONDS, **options: Any) -> httpx.Response:
        """A request under /api/v2, logged in; once more when the token has run out, which it does after a day."""
        fresh = "Authorization" not in self._http.headers
        if fresh:
            answer = self._request("POST", "/auth/token", wait=wait, json=self._credentials)
            if answer.status_code != httpx.codes.CREATED:
                raise StackError(
                    f"Airflow refuses the log-in of {self._credentials['username']} ({answer.status_code})",
                    where=self.url,
                    hint="if the password was changed in Airflow, put it into compose/secrets/airflow_admin_password; "
                    "if it is lost, put a new one there, and ./ops/stack up sets it",
                    code=FAILURE,
                )
            self._http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        response = self._request(method, f"/api/v2{path}", wait=wait, **options)
        if response.status_code == httpx.codes.UNAUTHORIZED and not fresh:
            del self._http.headers["Authorization"]
            return self._call(method, path, wait=wait, **options)
        return response

    def _json(self, method: str, path: str, **options: Any) -> Any:
        return self._accepted(self._call(method, path, **options)).json()

    def _accepted(self, response: httpx.Response) -> httpx.Response:
        if response.is_error:
            request = response.request
            raise StackError(
                f"Airflow refuses ({response.status_code}): {response.text[:500]}",
                where=f"{request.method} {request.url}",
                hint="./ops/stack logs api-server",
                code=FAILURE,
            )
        return response

    def ask(self, method: str, path: str, *, missing: bool = False, **options: Any) -> Any:
        """The answer of a call that has no method of its own here; None when it has no content.

        Args:
            method: GET, POST, PATCH or DELETE.
            path: under /api/v2.
            missing: whether what is asked for may not be there; the answer is None then.
            **options: as httpx takes them.
        """
        response = self._call(method, path, **options)
        if missing and response.status_code == httpx.codes.NOT_FOUND:
            return None
        self._accepted(response)
        return response.json() if response.content else None

    def authorization(self) -> dict[str, str]:
        """The header with which a client of the caller's own is logged in as this one."""
        self.ask("GET", "/version")
        return {"Authorization": self._http.headers["Authorization"]}

    def dag_ids(self, **filters: Any) -> list[str]:
        """The DAGs that Airflow knows: all, or those that the API's own filters leave."""
        found: list[str] = []
        while True:
            page = self._json("GET", "/dags", params={**filters, "limit": 100, "offset": len(found)})
            found += [dag["dag_id"] for dag in page["dags"]]
            if not page["dags"] or len(found) >= page["total_entries"]:
                return sorted(found)

    def import_errors(self, *, wait: float = 0) -> list[dict[str, str]]:
        """The DAG files that do not import: `file` and the line of its traceback that has the `error`."""
        found = self._json("GET", "/importErrors", wait=wait, params={"limit": 100})["import_errors"]
        return [{"file": error["filename"], "error": import_reason(error["stack_trace"])} for error in found]

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None) -> Run:
        """Starts one run of a DAG, which is taken out of its pause if it is in one: the run would wait for ever.

        Raises:
            StackError: There is no such DAG; with the known ones.
        """
        path = dag_path(dag_id)
        found = self._call("GET", path)
        if found.status_code == httpx.codes.NOT_FOUND:
            raise StackError(
                f"there is no DAG {dag_id!r}",
                where=self.url,
                hint=f"the DAGs are: {', '.join(self.dag_ids()) or 'none yet'}. A file that does not import is in "
                "./ops/stack status",
            )
        if self._accepted(found).json()["is_paused"]:
            self._json("PATCH", path, json={"is_paused": False})
        # An id of our own: when the answer is lost on its way, asking again cannot start a second run.
        run_id = f"manual__{datetime.now(UTC).isoformat(timespec='seconds')}_{secrets.token_hex(4)}"
        body = {"dag_run_id": run_id, "logical_date": None, "conf": conf or {}}
        answer = self._call("POST", f"{path}/dagRuns", json=body)
        if answer.status_code == httpx.codes.CONFLICT:
            return self.run(dag_id, run_id)
        return run_of(self._accepted(answer).json())

    def run(self, dag_id: str, run_id: str) -> Run:
        """A run as it is now."""
        return run_of(self._json("GET", run_path(dag_id, run_id)))

    def newest_success(self, dag_id: str) -> Run | None:
        """The newest run of a DAG that succeeded."""
        params = {"state": "success", "order_by": "-start_date", "limit": 1}
        response = self._call("GET", f"{dag_path(dag_id)}/dagRuns", params=params)
        if response.status_code == httpx.codes.NOT_FOUND:
            return None
        runs = self._accepted(response).json()["dag_runs"]
        return run_of(runs[0]) if runs else None

    def has_dag(self, dag_id: str) -> bool:
        """Whether Airflow has read the DAG's file, and still finds the DAG in it."""
        response = self._call("GET", f"/dags/{dag_id}")
        return response.is_success and not response.json().get("is_stale", False)

    def task_states(self, run: Run) -> list[tuple[str, str]]:
        """Each task instance of a run, by name and state; a mapped one as `task[3]`."""
        return [(instance_name(instance), instance["state"] or "none") for instance in self.task_instances(run)]

    def task_durations(self, run: Run) -> list[tuple[str, float]]:
        """Each task instance of a run that has ended, by name, and the seconds that it took."""
        found = self.task_instances(run)
        return [
            (instance_name(instance), instance["duration"]) for instance in found if instance["duration"] is not None
        ]

    def task_instances(self, run: Run) -> list[dict[str, Any]]:
        """All task instances of a run, as the API has them."""
        path = f"{run_path(run.dag_id, run.run_id)}/taskInstances"
        found: list[dict[str, Any]] = []
        while True:
            page = self._json("GET", path, params={"limit": 100, "offset": len(found)})
            found += page["task_instances"]
            if not page["task_instances"] or len(found) >= page["total_entries"]:
                return found

    def host_of(self, run: Run, task_id: str, number: int, attempt: int) -> str:
        """The machine's name that an attempt of a mapped task was given to; empty when Airflow kept no such attempt."""
        path = f"{run_path(run.dag_id, run.run_id)}/taskInstances/{quote(task_id, safe='')}/{number}/tries/{attempt}"
        found = self.ask("GET", path, missing=True)
        return str(found["hostname"]) if found else ""

    def result(self, run: Run, task_id: str) -> Any:
        """What a task returned; None when it returned nothing."""
        path = f"{run_path(run.dag_id, run.run_id)}/taskInstances/{quote(task_id, safe='')}/xcomEntries/return_value"
        response = self._call("GET", path)
        return response.json()["value"] if response.is_success else None

    def wait_for(self, run: Run, report: Callable[[str], None], *, timeout: float) -> Run:
        """The run when it has ended, reporting its tasks' states whenever they change.

        Args:
            run: The run.
            report: Shows a line to people.
            timeout: Seconds.

        Raises:
            StackError: It has not ended in time.
        """
        deadline = time.monotonic() + timeout
        said, said_at = "", 0.0
        while True:
            now = self.run(run.dag_id, run.run_id)
            summary = summarise([state for _, state in self.task_states(run)])
            if summary != said or time.monotonic() - said_at >= REPORT_SECONDS:
                report(f"{run.dag_id}: {summary}")
                said, said_at = summary, time.monotonic()
            if now.state in ENDED:
                return now
            if time.monotonic() >= deadline:
                raise StackError(
                    f"the run has not ended after {timeout:.0f} s: {summary}",
                    where=self.run_url(run),
                    hint="open it and look at what its tasks wait for",
                    code=FAILURE,
                )
            time.sleep(POLL_SECONDS)

    def run_url(self, run: Run) -> str:
        """The page of a run."""
        return f"{self.url}/dags/{quote(run.dag_id, safe='')}/runs/{quote(run.run_id, safe='')}"


def dag_path(dag_id: str) -> str:
    """Where the API has a DAG."""
    return f"/dags/{quote(dag_id, safe='')}"


def run_path(dag_id: str, run_id: str) -> str:
    """Where the API has a run."""
    return f"{dag_path(dag_id)}/dagRuns/{quote(run_id, safe='')}"


def run_of(answer: dict[str, Any]) -> Run:
    """A run out of the API's answer."""
    started = answer.get("start_date") or answer.get("queued_at")
    return Run(
        dag_id=answer["dag_id"],
        run_id=answer["dag_run_id"],
        state=answer["state"],
        started=datetime.fromisoformat(started).timestamp() if started else 0.0,
        duration=answer.get("duration"),
    )


def instance_name(instance: dict[str, Any]) -> str:
    """`task`, or `task[3]` for a mapped one."""
    index = instance["map_index"]
    return str(instance["task_id"]) if index < 0 else f"{instance['task_id']}[{index}]"


def summarise(states: list[str]) -> str:
    """How many tasks are in each state: `3 success, 1 running`."""
    counts = {state: states.count(state) for state in dict.fromkeys(states)}
    told = [f"{count} {'waiting' if state == 'none' else state}" for state, count in counts.items()]
    return ", ".join(told) or "no task yet"


def connect(
    project: Project, settings: Mapping[str, str], report: Callable[[str], None] | None = None
) -> AirflowClient:
    """Airflow's REST API of this stack, through its gateway.

    Args:
        project: The stack.
        settings: Its .env.
        report: Hears about it while Airflow does not answer.

    Raises:
        StackError: There is no admin password.
    """
    path = project.secrets / "airflow_admin_password"
    try:
        password = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise StackError(
            f"the admin password cannot be read: {error.strerror}",
            where=project.shown(path),
            hint="./ops/stack up makes it; run this as who ran that",
        ) from error
    return AirflowClient(local_url(settings), ADMIN, password, report=report)
