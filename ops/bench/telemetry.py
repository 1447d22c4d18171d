"""What telemetry costs tasks: `python -m ops.bench.telemetry [ROUNDS]`, against the stack that is up.

The same fan-out of no-op tasks with telemetry on; with statsd-exporter, collector and Prometheus stopped; with them
frozen; and with all of it switched off in Airflow, which takes a restart of its containers before and after. The first
three alternate round by round. Medians over the rounds, ratios to `off`. Leaves the stack as it was.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.table import Table

from ops import compose, environment_file, status
from ops.commands.screen import console, report
from ops.commands.up import PIPELINE_PATH
from ops.errors import FAILURE, StackError
from ops.project import ROOT, current_project
from ops.rollout import roll_out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ops.airflow_client import AirflowClient
    from ops.project import Project

TASKS = 100
ROUNDS = 5
LOAD = ROOT / "tests/integration/dags/load_dag.py"
TELEMETRY = ("statsd-exporter", "otel-collector", "prometheus")
RUN_SECONDS = 300.0


def measure(api: AirflowClient) -> tuple[float, float]:
    """Tasks per second, and the mean seconds of a task, of one fan-out.

    Raises:
        StackError: The run failed.
    """
    run = api.wait_for(api.trigger("load", {"tasks": TASKS, "seconds": 0}), lambda _: None, timeout=RUN_SECONDS)
    if run.state != "success" or run.duration is None:
        raise StackError(f"the run {run.run_id} ended as {run.state}", where=api.run_url(run), code=FAILURE)
    durations = [seconds for name, seconds in api.task_durations(run) if name.startswith("work[")]
    return TASKS / run.duration, statistics.mean(durations)


@contextmanager
def telemetry(project_name: str, how: str) -> Iterator[None]:
    """Telemetry's containers `stop`ped or `pause`d; as they are for anything else."""
    found = compose.instances(project_name)
    victims = [instance.id for service in TELEMETRY for instance in found.get(service, [])]
    undo = {"stop": "start", "pause": "unpause"}
    if how not in undo:
        yield
        return
    compose.docker(how, *victims)
    try:
        yield
    finally:
        compose.docker(undo[how], *victims)


@contextmanager
def switched_off(project: Project) -> Iterator[None]:
    """Airflow without metrics and traces, for a while."""
    before = environment_file.read(project)
    environment_file.write(project, before | {"STATSD_ON": "False", "TRACES": "False", "OTLP_ENDPOINT": ""})
    roll_out(project, report)
    try:
        yield
    finally:
        environment_file.write(project, {"STATSD_ON": "True"} | before)
        roll_out(project, report)


def main(rounds: int = ROUNDS) -> None:
    """Runs the rounds and prints the table."""
    project = current_project()
    settings = environment_file.read(project)
    name = settings["COMPOSE_PROJECT_NAME"]
    if not all(compose.instances(name).get(service) for service in (*PIPELINE_PATH, *TELEMETRY)):
        raise StackError("the stack is not up with observability", cure="./ops/stack up")
    dag = project.root / "dags" / LOAD.name
    shutil.copy(LOAD, dag)
    results: dict[str, list[tuple[float, float]]] = {}
    try:
        api = status.client(project, settings)
        while not api.has_dag("load"):
            report("waiting for the load's DAG")
            time.sleep(2)
        measure(api)  # the first run of a DAG is slower in every way
        for number in range(1, rounds + 1):
            for how in ("on", "stop", "pause"):
                with telemetry(name, how):
                    results.setdefault(how, []).append(measure(api))
                report(f"round {number} of {rounds}, {how}: {results[how][-1][0]:.2f} tasks/s")
        with switched_off(project):
            measure(api)
            for number in range(1, rounds + 1):
                results.setdefault("off", []).append(measure(api))
                report(f"round {number} of {rounds}, off: {results['off'][-1][0]:.2f} tasks/s")
    finally:
        dag.unlink()

    table = Table("telemetry", "tasks/s", "against off", "seconds a task", "against off", title=f"{TASKS} no-op tasks")
    off = [statistics.median(column) for column in zip(*results["off"], strict=True)]
    for how, label in {"off": "off", "on": "on", "stop": "on, its containers stopped", "pause": "…frozen"}.items():
        rate, seconds = (statistics.median(column) for column in zip(*results[how], strict=True))
        table.add_row(label, f"{rate:.2f}", f"{rate / off[0]:.2f}", f"{seconds:.3f}", f"{seconds / off[1]:.2f}")
    console.print(table)


if __name__ == "__main__":
    try:
        main(*map(int, sys.argv[1:2]))
    except StackError as error:
        sys.exit(str(error))
