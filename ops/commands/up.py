"""`up`: the stack runs, and a real pipeline run has succeeded in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ops import (
    compose,
    compose_override,
    container_limits,
    data_tier,
    patch_report,
    preflight,
    secrets_store,
    settings_file,
    worker_slots,
)
from ops.errors import FAILURE, StackError, when_interrupted
from ops.lock import stack_lock
from ops.observability import generated_config
from ops.observability.derived_settings import derive_settings
from ops.pipeline import verify_pipeline
from ops.project import current_project
from ops.rollout import recreate, roll_out
from ops.scaling import parse_scale
from ops.screen import heading, report
from ops.services import (
    ALERTMANAGERS,
    DATA_PROFILES,
    DEFAULT_PROFILES,
    PROFILES,
    replicas_variable,
)
from ops.status_tables import print_urls

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ops.project import Project


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
    own_workers = compose_override.own_workers(project)
    counts = dict(parse_scale(argument, own_workers) for argument in scale or [])
    names = [name for given in profile or [] for name in given.split(",") if name]
    settings_file.check_profiles(names, "--profile")
    with when_interrupted("the next ./ops/stack up finishes it"), stack_lock(project, "up", report):
        heading("Pre-flight: no impact yet")
        settings = settings_file.read(project)
        if profile:
            settings["COMPOSE_PROFILES"] = ",".join(dict.fromkeys(names))
        settings |= {replicas_variable(service): str(count) for service, count in counts.items()}
        preflight.check(project, settings)
        warn_of_other_data(settings)
        report("Docker, settings, secrets, ports, memory and disk are as they should be")

        heading("Starting")
        prepare(project, settings)
        start(project, settings["COMPOSE_PROJECT_NAME"])
        if "data-ha" in settings_file.profiles(settings):
            data_tier.apply_cluster_settings(project, settings["COMPOSE_PROJECT_NAME"], report)
        verify_pipeline(project, settings)
        print_urls(project, settings)


def warn_of_other_data(settings: dict[str, str]) -> None:
    """Says so when the other profile's database has data, which this one will not show."""
    name = settings["COMPOSE_PROJECT_NAME"]
    for profile in set(settings_file.profiles(settings)).intersection(DATA_PROFILES):
        if said := data_tier.left_behind(profile, name, compose.volumes(name)):
            report(said)


def prepare(project: Project, settings: dict[str, str]) -> None:
    """Images, secrets and .env: all that `docker compose up` needs."""
    from ops.images.resolve import ImageError, resolve_images

    machine = preflight.machine_memory()
    settings |= container_limits.size_workers(settings, machine)
    # What was asked for outlives an interruption.
    settings_file.write(project, settings)
    try:
        resolved = resolve_images(project.root, report, profiles=settings_file.profiles(settings))
    except ImageError as error:
        raise StackError(str(error), hint="see above; then ./ops/stack up again", code=FAILURE) from error
    settings |= {key: image.reference for key, image in resolved.items()}
    derive_settings(settings, set(resolved), secrets_store.optional(project))
    # Which nodes Prometheus asks the exporters about: compose/prometheus/targets.
    settings["DATA_TIER"] = "data-ha" if "data-ha" in settings_file.profiles(settings) else "data"
    settings["STACK_IMAGES_ORIGIN"] = ",".join(f"{key}={image.origin}" for key, image in resolved.items())
    origins = sorted({image.origin for image in resolved.values()})
    report(f"images: {len(resolved)}, {' and '.join(origins)}")

    if made := secrets_store.generate(project):
        report(f"secrets: {len(made)} made in {project.shown(project.secrets)}")
    secrets_store.mount(project, settings, settings["AIRFLOW_IMAGE"])
    if settings_file.write(project, settings):
        report(f"settings: {project.shown(project.env_file)}")
    model = compose.config(project)
    patch_report.check_images(model, settings)
    if generated_config.write(project, settings):
        report(f"rules and routes: {project.shown(project.generated)}")
    report(container_limits.summary(settings, container_limits.total(model), machine))


def start(project: Project, name: str) -> None:
    """Starts every service, ends those whose profile is off, and waits until all are healthy.

    Raises:
        StackError: A service does not become healthy.
    """
    found = compose.instances(name)
    # Compose leaves services of a profile that was switched off alone, as if it were on.
    model = compose.config(project)
    if told := worker_slots.shortage(model):
        report(told)
    if surplus := found.keys() - model["services"].keys():
        known = compose.config(project, "--profile=*")["services"].keys()
        if off := sorted(surplus & known):
            report(f"no longer wanted: {', '.join(off)}")
            compose.run(project, report, "--profile=*", "rm", "--stop", "--force", *off)
    # Compose does not see that a secret's file has another content; containers keep the one they started with.
    outdated = outdated_services(model, found, secrets_store.mounted_since(project))
    if outdated and outdated <= set(ALERTMANAGERS):
        recreate(project, report, sorted(outdated))
        outdated = set()
    roll_out(project, report, "--remove-orphans", *(["--force-recreate"] if outdated else []))
    generated_config.load(project, name)


def outdated_services(
    model: Mapping[str, Any], found: Mapping[str, list[compose.Instance]], since: Mapping[str, float]
) -> set[str]:
    """The services with a container that is older than a secret that it reads.

    Args:
        model: The stack as compose sees it.
        found: Its containers.
        since: When the files of each reader were written.
    """
    outdated = set()
    for name, instances in found.items():
        used = [secret["source"] for secret in model["services"].get(name, {}).get("secrets", [])]
        readers = {Path(model["secrets"][source]["file"]).parent.name for source in used}
        newest = max((since.get(reader, 0.0) for reader in readers), default=0.0)
        if any(instance.created < newest for instance in instances):
            outdated.add(name)
    return outdated
