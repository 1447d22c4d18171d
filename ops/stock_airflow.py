"""A stock Airflow beside the stack, to compare with: compose/stock/compose.yaml, from the stack's own images."""

from __future__ import annotations

import secrets
import shutil
import socket
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ops import compose
from ops.clients.airflow import AirflowClient
from ops.errors import StackError
from ops.project import ADMIN, Project
from ops.rollout import roll_out
from ops.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

IMAGES = ("AIRFLOW_IMAGE", "POSTGRES_IMAGE", "REDIS_IMAGE")
OVERRIDES = ("SCHEDULER_REPLICAS", "WORKER_REPLICAS", "WORKER_CONCURRENCY")
DAG_SECONDS = 180.0


@dataclass(frozen=True)
class StockProject(Project):
    """The stock set-up as a project: what the commands and `docker compose` need to know of it."""

    @property
    def compose_directory(self) -> Path:
        """The folder of its compose file."""
        return self.root / "compose/stock"


@dataclass(frozen=True)
class Stock:
    """A stock Airflow that runs.

    Attributes:
        project: its files and state.
        name: its compose project's name.
        api: its REST API, as its admin.
        dags: its DAG folder; new files in it are seen after up to 300 s, which is Airflow's default.
    """

    project: StockProject
    name: str
    api: AirflowClient
    dags: Path


def stock_settings(settings: Mapping[str, str], state: Path, overrides: Mapping[str, str]) -> dict[str, str]:
    """The .env of a stock set-up, with secrets that are as short-lived as it is.

    Args:
        settings: The stack's own .env.
        state: The folder of the stock set-up's state.
        overrides: see OVERRIDES.

    Raises:
        StackError: There is no such setting, or the stack has no images yet.
    """
    if unknown := sorted(set(overrides) - set(OVERRIDES)):
        raise StackError(f"the stock set-up has no setting {unknown[0]}", hint=f"it has: {', '.join(OVERRIDES)}")
    if missing := [key for key in IMAGES if not settings.get(key)]:
        raise StackError(f"the stack has no {missing[0]} yet", hint="./ops/stack up")
    return {
        "COMPOSE_PROJECT_NAME": f"{settings['COMPOSE_PROJECT_NAME']}-stock",
        **{key: settings[key] for key in IMAGES},
        "STOCK_DAGS": str(state / "dags"),
        "STOCK_PORT": str(free_port()),
        **{f"STOCK_{key}": secrets.token_urlsafe(48) for key in ("JWT_SECRET", "SECRET_KEY", "PASSWORD")},
        **overrides,
    }


def write_settings(project: Project, settings: Mapping[str, str]) -> None:
    """Writes an .env that nobody else may read."""
    project.env_file.touch(mode=0o600)
    project.env_file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()), encoding="utf-8")


@contextmanager
def stock(
    project: Project,
    settings: Mapping[str, str],
    report: Callable[[str], None],
    *,
    dags: Sequence[Path] = (),
    dag_ids: Sequence[str] = (),
    **overrides: str,
) -> Iterator[Stock]:
    """A stock Airflow, healthy, for as long as the block lasts; then nothing of it is left.

    Args:
        project: The stack that it stands beside.
        settings: That stack's .env, of which it takes the images.
        report: Shows a line to people.
        dags: Files that are in its DAG folder from the start.
        dag_ids: DAGs of theirs that it has read when the block begins.
        **overrides: see OVERRIDES.

    Raises:
        StackError: It does not become healthy.
    """
    with tempfile.TemporaryDirectory(prefix="airflow-stock-") as folder:
        state = Path(folder)
        ours = stock_settings(settings, state, overrides)
        itself = StockProject(root=project.root, state=state)
        # Its containers read the DAGs as another user.
        state.chmod(0o755)
        (state / "dags").mkdir(mode=0o755)
        for file in dags:
            shutil.copy(file, state / "dags")
            (state / "dags" / file.name).chmod(0o644)
        write_settings(itself, ours)
        name = ours["COMPOSE_PROJECT_NAME"]
        remove(itself, name, report)  # what a killed process may have left
        try:
            report("a stock Airflow is brought up beside the stack")
            roll_out(itself, report)
            api = AirflowClient(f"http://127.0.0.1:{ours['STOCK_PORT']}", ADMIN, ours["STOCK_PASSWORD"], report=report)
            wait(lambda: all(map(api.has_dag, dag_ids)), DAG_SECONDS, "the stock Airflow has read its DAGs", report)
            yield Stock(itself, name, api, state / "dags")
        finally:
            report("the stock Airflow is removed")
            remove(itself, name, report)


def remove(project: Project, name: str, report: Callable[[str], None]) -> None:
    """Ends it, with its data; frozen or not."""
    frozen = [instance.id for instance in compose.in_state(compose.instances(name), "paused")]
    if frozen:
        compose.docker("unpause", *frozen)
    compose.run(project, report, "down", "--volumes", "--remove-orphans", "--timeout=5")


def free_port() -> int:
    """A port that nobody has. One of Docker's choice would be another after each restart of the container."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def one_worker_of(slots: int, other: Stock, report: Callable[[str], None]) -> Iterator[None]:
    """The stock set-up with one worker of so many slots; as it was afterwards."""
    before = other.project.env_file.read_text(encoding="utf-8")
    kept = [line for line in before.splitlines() if not line.startswith(("WORKER_CONCURRENCY=", "WORKER_REPLICAS="))]
    changed = "\n".join([*kept, f"WORKER_CONCURRENCY={slots}", "WORKER_REPLICAS=1", ""])
    try:
        other.project.env_file.write_text(changed, encoding="utf-8")
        roll_out(other.project, report, "--no-deps", "airflow-worker")
        yield
    finally:
        other.project.env_file.write_text(before, encoding="utf-8")
        roll_out(other.project, report, "--no-deps", "airflow-worker")
