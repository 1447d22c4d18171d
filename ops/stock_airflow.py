"""A stock Airflow to compare the stack with: compose/stock/compose.yaml, on the stack's images."""

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
"""Settings of compose/stock/compose.yaml that a caller may set."""
DAG_SECONDS = 180.0


@dataclass(frozen=True)
class StockProject(Project):
    """The stock Airflow as a compose project."""

    @property
    def compose_directory(self) -> Path:
        """Folder of the compose file."""
        return self.root / "compose/stock"


@dataclass(frozen=True)
class Stock:
    """A running stock Airflow.

    Attributes:
        project: Its files and state.
        name: Name of its compose project.
        api: Its REST API, logged in as admin.
        dags: Its DAG folder. Airflow finds new files after up to 300 s, its default.
    """

    project: StockProject
    name: str
    api: AirflowClient
    dags: Path


def stock_settings(settings: Mapping[str, str], state: Path, overrides: Mapping[str, str]) -> dict[str, str]:
    """Return the .env of a stock Airflow, with new secrets.

    Args:
        settings: The stack's .env.
        state: Folder of the stock Airflow's state.
        overrides: Values for some of OVERRIDES.

    Raises:
        StackError: An override is unknown, or the stack has no images yet.
    """
    if unknown := sorted(set(overrides) - set(OVERRIDES)):
        raise StackError(
            f"cannot override {unknown[0]} of a stock Airflow", hint=f"choose one of: {', '.join(OVERRIDES)}"
        )
    if missing := [key for key in IMAGES if not settings.get(key)]:
        raise StackError(f"cannot start a stock Airflow: the stack has no {missing[0]} yet", hint="run ./ops/stack up")
    return {
        "COMPOSE_PROJECT_NAME": f"{settings['COMPOSE_PROJECT_NAME']}-stock",
        **{key: settings[key] for key in IMAGES},
        "STOCK_DAGS": str(state / "dags"),
        "STOCK_PORT": str(free_port()),
        **{f"STOCK_{key}": secrets.token_urlsafe(48) for key in ("JWT_SECRET", "SECRET_KEY", "PASSWORD")},
        **overrides,
    }


def write_settings(project: Project, settings: Mapping[str, str]) -> None:
    """Write the .env, readable by its owner only."""
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
    """Run a healthy stock Airflow for the duration of the block; then remove it with its data.

    Args:
        project: The stack beside it.
        settings: The stack's .env, which names the images.
        report: Shows a progress line.
        dags: Files that are copied into its DAG folder before it starts.
        dag_ids: DAGs in these files that it has parsed when the block begins.
        **overrides: Values for some of OVERRIDES.

    Raises:
        StackError: It did not become healthy.
    """
    with tempfile.TemporaryDirectory(prefix="airflow-stock-") as folder:
        state = Path(folder)
        values = stock_settings(settings, state, overrides)
        stock_project = StockProject(root=project.root, state=state)
        # The containers read the DAGs as another user.
        state.chmod(0o755)
        (state / "dags").mkdir(mode=0o755)
        for file in dags:
            shutil.copy(file, state / "dags")
            (state / "dags" / file.name).chmod(0o644)
        write_settings(stock_project, values)
        name = values["COMPOSE_PROJECT_NAME"]
        remove(stock_project, name, report)  # leftovers of a killed process
        try:
            report("starting a stock Airflow beside the stack")
            roll_out(stock_project, report)
            api = AirflowClient(
                f"http://127.0.0.1:{values['STOCK_PORT']}", ADMIN, values["STOCK_PASSWORD"], report=report
            )
            wait(lambda: all(map(api.has_dag, dag_ids)), DAG_SECONDS, "the stock Airflow has parsed its DAGs", report)
            yield Stock(stock_project, name, api, state / "dags")
        finally:
            report("removing the stock Airflow")
            remove(stock_project, name, report)


def remove(project: Project, name: str, report: Callable[[str], None]) -> None:
    """Remove a stock Airflow with its data, also if it is frozen."""
    frozen = [instance.id for instance in compose.in_state(compose.instances(name), "paused")]
    if frozen:
        compose.docker("unpause", *frozen)
    compose.run(project, report, "down", "--volumes", "--remove-orphans", "--timeout=5")


def free_port() -> int:
    """Return a free port; a port that Docker chooses would change with each restart of the container."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def single_worker(slots: int, other: Stock, report: Callable[[str], None]) -> Iterator[None]:
    """Run the stock Airflow with one worker of so many slots for the duration of the block."""
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
