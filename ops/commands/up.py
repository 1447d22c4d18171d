"""`up`: the stack runs, and a real pipeline run has succeeded in it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops import airflow_client, compose, credentials, environment_file, preflight, status
from ops.commands.scale import parse_scale
from ops.commands.screen import heading, report
from ops.commands.status import print_urls
from ops.errors import FAILURE, StackError
from ops.lock import stack_lock
from ops.project import DEFAULT_PROFILES, PIPELINE, PROFILES, current_project, replicas_variable

if TYPE_CHECKING:
    from ops.project import Project

STALL_SECONDS = 300.0
"""Services that are starting may take their time, but not this long without one of them getting on."""
PIPELINE_SECONDS = 300.0
DAG_SECONDS = 120.0


def up(
    profile: Annotated[
        list[str] | None,
        typer.Option(
            help=f"What runs beside the core: {', '.join(PROFILES)}. May be given several times. "
            f"Unless given: what .env says, at first {' and '.join(DEFAULT_PROFILES)}.",
            show_default=False,
        ),
    ] = None,
    scale: Annotated[
        list[str] | None,
        typer.Option(metavar="SERVICE=N", help="How many instances, for instance worker=4.", show_default=False),
    ] = None,
) -> None:
    """Start the stack, or what is missing of it, and see a pipeline run succeed.

    Everything it decides is written to compose/.env and compose/secrets/; `docker compose up -d` in compose/ then does
    the same. Running it again changes nothing that is as it should be.
    """
    project = current_project()
    with stack_lock(project, "up", report):
        heading("Pre-flight: no impact yet")
        settings = environment_file.read(project)
        if profile:
            names = [name for given in profile for name in given.split(",") if name]
            environment_file.check_profiles(names, "--profile")
            settings["COMPOSE_PROFILES"] = ",".join(dict.fromkeys(names))
        for service, count in map(parse_scale, scale or []):
            settings[replicas_variable(service)] = str(count)
        preflight.check(project, settings)
        report("Docker, settings, secrets, ports, memory and disk are as they should be")

        heading("Starting")
        prepare(project, settings)
        start(project)
        prove(project, settings)
        print_urls(project, settings)


def prepare(project: Project, settings: dict[str, str]) -> None:
    """Images, secrets and .env: all that `docker compose up` needs."""
    from ops.images import ImageError, resolve

    try:
        resolved = resolve(project.root, report)
    except ImageError as error:
        raise StackError(str(error), cure="see above; then ./ops/stack up again", code=FAILURE) from error
    settings |= {key: image.reference for key, image in resolved.items()}
    settings["STACK_IMAGES_ORIGIN"] = ",".join(f"{key}={image.origin}" for key, image in resolved.items())
    origins = sorted({image.origin for image in resolved.values()})
    report(f"images: {len(resolved)}, {' and '.join(origins)}")

    if made := credentials.generate(project):
        report(f"secrets: {len(made)} made in {project.shown(project.secrets)}")
    credentials.mount(project, settings, settings["AIRFLOW_IMAGE"])
    if environment_file.write(project, settings):
        report(f"settings: {project.shown(project.env_file)}")


def start(project: Project) -> None:
    """Starts every service and waits until all are healthy.

    Raises:
        StackError: Nothing has got on for STALL_SECONDS; naming what is not healthy, with its last words.
    """
    compose.run(project, report, "up", "--detach", "--remove-orphans")
    wait_until_whole(project, compose.config(project))


def wait_until_whole(project: Project, model: dict[str, Any]) -> None:
    """Waits until every service has its instances, all healthy; reports each that gets there."""
    said = ""
    moved = reported = time.monotonic()
    while True:
        found = status.services(project, model)
        waiting = [service for service in found if not status.is_whole(service)]
        now = time.monotonic()
        if not waiting:
            report(f"{len(found)} services are healthy")
            return
        line = "waiting for " + ", ".join(f"{s['name']} {s['healthy']}/{s['wanted']}" for s in waiting)
        if line != said:
            moved = now
        if line != said or now - reported > 10:
            report(line)
            said, reported = line, now
        if now - moved > STALL_SECONDS:
            raise not_healthy(project, waiting[0])
        time.sleep(1)


def not_healthy(project: Project, service: status.ServiceStatus) -> StackError:
    """The error for a service that does not become healthy, with the last lines of its log."""
    log = compose.output(project, "logs", "--no-color", "--no-log-prefix", "--tail=15", service["name"])
    return StackError(
        f"{service['name']} has not become healthy in {STALL_SECONDS:.0f} s; its last words:\n{log.rstrip()}",
        where=", ".join(f"{i['id']} is {i['state']}, {i['health']}" for i in service["instances"]) or "no container",
        cure=f"./ops/stack logs {service['name']}; the rest is up, and ./ops/stack up goes on from here",
        code=FAILURE,
    )


def prove(project: Project, settings: dict[str, str]) -> None:
    """Sees that a run of the pipeline has succeeded on the containers that run now, starting one if none has.

    Raises:
        StackError: It failed.
    """
    api = status.client(project, settings)
    found = compose.instances(project, settings["COMPOSE_PROJECT_NAME"])
    # `migrate` runs anew at every `up`; the others are made anew only when something about them changed.
    newest = max(instance.created for service, of in found.items() if service != "migrate" for instance in of)
    run = api.newest_success(PIPELINE)
    if run is None or run.started < newest:
        deadline = time.monotonic() + DAG_SECONDS
        while not api.has_dag(PIPELINE):
            if time.monotonic() > deadline:
                raise StackError(
                    f"Airflow has not found {PIPELINE} in {DAG_SECONDS:.0f} s",
                    where="dags/",
                    cure="./ops/stack status shows DAG files that do not import; ./ops/stack logs dag-processor",
                    code=FAILURE,
                )
            report(f"waiting for {PIPELINE} to be read")
            time.sleep(2)
        run = api.wait_for(api.trigger(PIPELINE), report, timeout=PIPELINE_SECONDS)
    if run.state != "success":
        raise failed(api, run)
    result = api.result(run, "report_result")
    told = f": {result['model']}, accuracy {result['accuracy']:.4f}" if isinstance(result, dict) else ""
    report(f"{PIPELINE} has succeeded{told}")


def failed(api: airflow_client.AirflowClient, run: airflow_client.Run) -> StackError:
    """The error for a run that failed, naming its tasks that did."""
    tasks = [name for name, state in api.task_states(run) if state == "failed"]
    return StackError(
        f"the run of {run.dag_id} failed, in {', '.join(tasks) or 'no task of its own'}",
        where=api.run_url(run),
        cure="open it and read the log of the task",
        code=FAILURE,
    )
