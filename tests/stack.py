"""A stack as tests use it: its commands, its containers, and a client of each of its APIs."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import quote

import httpx

from ops import compose, compose_override, settings_file
from ops.clients import alertmanager, prometheus, slack_stub, transport
from ops.clients.airflow import run_path
from ops.clients.alertmanager import Alertmanager
from ops.clients.prometheus import Prometheus
from ops.errors import StackError
from ops.project import ADMIN, ROOT, Project
from ops.services import local_url
from ops.status import InstanceStatus, service_statuses

T = TypeVar("T")

TERMINAL = ("success", "failed")


def wait_until(condition: Callable[[], T], *, timeout: float, what: str, interval: float = 0.5) -> T:
    """Return the condition's value as soon as it is true; it may raise clients' errors while a service is down."""
    deadline = time.monotonic() + timeout
    last: object = None
    while time.monotonic() < deadline:
        try:
            last = condition()
            if last:
                return last
        except (httpx.HTTPError, StackError) as error:
            last = error
        time.sleep(interval)
    raise AssertionError(f"not within {timeout:g} s: {what}; last seen: {last!r}")


@dataclass(frozen=True)
class Container:
    """One container of the stack."""

    id: str
    service: str
    state: str
    ip: dict[str, str]

    def kill(self, signal: str = "KILL") -> None:
        """Send a signal to the main process from outside; Docker's restart policy does not follow `docker kill`."""
        subprocess.run(["docker", "kill", f"--signal={signal}", self.id], check=True, capture_output=True)

    def crash(self) -> None:
        """End the main process by SIGKILL from the host: the restart policy applies, as after a crash."""
        pid = docker("inspect", "--format={{.State.Pid}}", self.id).strip()
        os.kill(int(pid), 9)

    def start(self) -> None:
        docker("start", self.id)

    def execute(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["docker", "exec", self.id, *command], check=check, capture_output=True, text=True)

    def inspect(self) -> dict[str, Any]:
        """Return what `docker inspect` prints."""
        details: dict[str, Any] = json.loads(docker("inspect", self.id))[0]
        return details


@functools.lru_cache(maxsize=1)
def compose_model(project: Project, _files: tuple[bytes, ...]) -> dict[str, Any]:
    """Return the compose model, which takes longer than everything else of Stack.ready.

    Args:
        project: The stack.
        _files: The content of the files that tests change.
    """
    return compose.config(project)


def is_healthy(instance: InstanceStatus) -> bool:
    """Return whether Docker reports a container as healthy, or its own probe does after its start."""
    if instance["health"] == "starting":
        return instance["state"] == "running" and compose.probe_succeeds(instance["id"])
    return instance["health"] != "unhealthy"


def docker(*arguments: str) -> str:
    """Return the output of a docker command."""
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True, timeout=300).stdout


@dataclass(frozen=True)
class Stack:
    """A stack, by its folders.

    Attributes:
        state: Its folder of .env and secrets.
        dags: The folder of its DAGs.
        reports: The folder for logs of a failure.
    """

    state: Path
    dags: Path
    reports: Path

    def command(
        self,
        *arguments: str,
        check: bool = True,
        timeout: float = 900,
        stdout: IO[str] | int = subprocess.PIPE,
        given: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Run `./ops/stack …` against this stack; `given` is its standard input."""
        result = subprocess.run(
            [ROOT / "ops" / "stack", *arguments],
            env={**os.environ, "STACK_STATE_DIR": str(self.state)},
            input=given,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or result.returncode == 0, f"ops/stack {' '.join(arguments)}:\n{result.stdout}"
        return result

    @property
    def settings(self) -> dict[str, str]:
        """Return the stack's .env, over the defaults."""
        return settings_file.read(self.project)

    @property
    def project(self) -> Project:
        """Return the argument by which the functions of ops/ identify the stack."""
        return Project(root=ROOT, state=self.state)

    @property
    def name(self) -> str:
        """Return its compose project."""
        return self.settings["COMPOSE_PROJECT_NAME"]

    def status(self) -> dict[str, Any]:
        """Return the output of `ops/stack status --json`."""
        answer: dict[str, Any] = json.loads(self.command("status", "--json", check=False).stdout)
        return answer

    def ready(self) -> bool:
        """Return whether every service has its instances, all healthy; takes a tenth of the time of `status`.

        A container that has just started is healthy when its own probe succeeds: Docker runs it only every 20 s.
        """
        override = compose_override.path(self.project)
        files = [self.project.env_file, *([override] if override else [])]
        model = compose_model(self.project, tuple(file.read_bytes() for file in files))
        return all(
            len(service["instances"]) == service["wanted"] and all(map(is_healthy, service["instances"]))
            for service in service_statuses(model)
        )

    def containers(self, service: str | None = None, *, include_exited: bool = False) -> list[Container]:
        """Return the containers of one service or of all, oldest first."""
        filters = [f"--filter=label=com.docker.compose.project={self.name}"]
        if service:
            filters.append(f"--filter=label=com.docker.compose.service={service}")
        ids = docker("ps", "--quiet", "--no-trunc", *(["--all"] if include_exited else []), *filters).split()
        if not ids:
            return []
        return [
            Container(
                id=details["Id"],
                service=details["Config"]["Labels"]["com.docker.compose.service"],
                state=details["State"]["Status"],
                ip={name: net["IPAddress"] for name, net in details["NetworkSettings"]["Networks"].items()},
            )
            for details in sorted(json.loads(docker("inspect", *ids)), key=lambda details: details["Created"])
        ]

    def secret(self, name: str) -> str:
        return (self.state / "secrets" / name).read_text().strip()

    @property
    def airflow_url(self) -> str:
        return local_url(self.settings)

    def log_in(self, user: str, password: str) -> Airflow:
        """Return a client of Airflow's REST API with this user's log-in."""
        return Airflow(self.airflow_url, user, password)

    @functools.cached_property
    def api(self) -> Airflow:
        """Return a client of Airflow's REST API with the administrator's log-in."""
        return self.log_in(ADMIN, self.secret("airflow_admin_password"))

    @functools.cached_property
    def prometheus(self) -> Prometheus:
        return prometheus.connect(self.settings)

    @functools.cached_property
    def alertmanagers(self) -> list[Alertmanager]:
        return alertmanager.both(self.settings)

    @functools.cached_property
    def slack(self) -> SlackStub:
        return SlackStub(self.settings)

    @functools.cached_property
    def flower(self) -> httpx.Client:
        """Return a client of Flower with the password."""
        password = self.secret("flower_password")
        return httpx.Client(base_url=local_url(self.settings, "flower"), auth=(ADMIN, password), timeout=30)


class SlackStub:
    """Client of the Slack stub: the received messages, and faults to inject."""

    def __init__(self, settings: dict[str, str]) -> None:
        self.settings = settings
        log_in = transport.page_log_in(settings)
        self.http = httpx.Client(base_url=local_url(settings, "slack_stub"), auth=log_in, timeout=30)

    def received(self, since: float, alert: str, *, firing: bool, **labels: str) -> list[slack_stub.Message]:
        """Return the messages about an alert since a moment."""
        return [
            message
            for message in slack_stub.messages(self.settings)
            if message.received >= since
            and (message.alert, message.firing) == (alert, firing)
            and labels.items() <= message.labels.items()
        ]

    def presses(self) -> tuple[int, float]:
        """Return how often the dead man's switch was pressed, and the seconds since the last time."""
        presses = self.http.get("/watchdog").raise_for_status().json()
        return int(presses["count"]), time.time() - (presses["last"] or 0.0)

    @contextmanager
    def failing(self, **fault: int) -> Iterator[None]:
        """Let the next messages fail for the duration of the block, by a fault of compose/slack-stub/slack_stub.py."""
        self.http.put("/fault", json=fault).raise_for_status()
        try:
            yield
        finally:
            self.http.delete("/fault").raise_for_status()


class Airflow:
    """Client of Airflow's REST API; logs in once, since FAB refuses more than five log-ins in 40 s."""

    def __init__(self, url: str, user: str, password: str, *, transport: httpx.BaseTransport | None = None) -> None:
        self.http = httpx.Client(base_url=url, timeout=30, transport=transport)
        token = self.http.post("/auth/token", json={"username": user, "password": password}).raise_for_status()
        self.http.headers["Authorization"] = f"Bearer {token.json()['access_token']}"

    def get(self, path: str, **params: Any) -> dict[str, Any]:
        """Return the JSON of a GET under /api/v2."""
        answer: dict[str, Any] = self.http.get(f"/api/v2{path}", params=params).raise_for_status().json()
        return answer

    def has_dag(self, dag_id: str) -> bool:
        """Return whether Airflow has parsed the DAG, and it is still in its file."""
        response = self.http.get(f"/api/v2/dags/{dag_id}")
        return response.is_success and not response.json()["is_stale"]

    def trigger(self, dag_id: str, **conf: Any) -> str:
        """Wait for a DAG, start a run of it, and return the run's id."""
        wait_until(lambda: self.has_dag(dag_id), timeout=60, what=f"the DAG {dag_id} is there")
        self.http.patch(f"/api/v2/dags/{dag_id}", json={"is_paused": False}).raise_for_status()
        body = {"logical_date": None, "conf": conf}
        run = self.http.post(f"/api/v2/dags/{dag_id}/dagRuns", json=body).raise_for_status()
        return str(run.json()["dag_run_id"])

    def run_state(self, dag_id: str, run_id: str) -> str:
        return str(self.get(f"/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def task_instances(self, dag_id: str, run_id: str, task_id: str | None = None) -> list[dict[str, Any]]:
        """Return all task instances of a run, or those of one task."""
        instances: list[dict[str, Any]] = []
        while True:
            page = self.get(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances", limit=100, offset=len(instances))
            instances += page["task_instances"]
            if len(instances) >= page["total_entries"] or not page["task_instances"]:
                return [ti for ti in instances if task_id in (None, ti["task_id"])]

    def in_state(self, dag_id: str, run_id: str, task_id: str, *states: str) -> list[dict[str, Any]]:
        """Return the task instances of a task that are in one of the states."""
        return [ti for ti in self.task_instances(dag_id, run_id, task_id) if ti["state"] in states]

    def wait_for_run(self, dag_id: str, run_id: str, *, timeout: float) -> str:
        """Return the terminal state of a run."""

        def ended() -> str | None:
            state = self.run_state(dag_id, run_id)
            return state if state in TERMINAL else None

        return str(wait_until(ended, timeout=timeout, what=f"the run {dag_id}/{run_id} has ended"))

    def xcom(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """Return a task's return value."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        return self.get(path)["value"]

    def log(self, dag_id: str, run_id: str, task_id: str, number: int = 1, *, map_index: int = -1) -> str:
        """Return the whole log of one try, as the API's JSON."""
        path = f"/api/v2{run_path(dag_id, run_id)}/taskInstances/{quote(task_id, safe='')}/logs/{number}"
        params = {"full_content": True, "map_index": map_index}
        return self.http.get(path, params=params).raise_for_status().text
