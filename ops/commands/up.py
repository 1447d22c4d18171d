"""`up`: start the stack and verify it with a run of the ML pipeline."""

from __future__ import annotations

import ipaddress
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ops import (
    compose,
    compose_override,
    container_limits,
    data_tier,
    docker_daemon,
    patch_report,
    preflight,
    redis_users,
    secrets_store,
    settings_file,
    worker_slots,
)
from ops.errors import FAILURE, StackError, when_interrupted
from ops.images.versions import known_faults
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
    OBSERVABILITY,
    PROFILES,
    PUBLISHED,
    chosen_profile,
    published_with,
    replicas_variable,
)
from ops.status_tables import print_urls

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from ops.images.resolve import ResolvedImage
    from ops.project import Project

HA_PROFILES: Final = ("data-ha", *(name for name in DEFAULT_PROFILES if name not in DATA_PROFILES))


def up(
    profile: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Profiles to run beside the core: {', '.join(PROFILES)}. Repeatable. "
            f"Default: those of the last up, at first {', '.join(DEFAULT_PROFILES)}.",
            show_default=False,
        ),
    ] = None,
    ha: Annotated[bool, typer.Option("--ha", help=f"Short for --profile {' --profile '.join(HA_PROFILES)}.")] = False,
    scale: Annotated[
        list[str] | None,
        typer.Option(metavar="SERVICE=N", help="Number of instances of a service. Repeatable.", show_default=False),
    ] = None,
) -> None:
    """Start the stack and verify it with a run of the ML pipeline.

    Running it again starts what is missing and changes nothing else. Settings are kept in compose/.env and secrets in
    compose/secrets/, so that `docker compose up -d` in compose/ does the same by hand.

    Example: ./ops/stack up --ha --scale worker=4
    """
    project = current_project()
    own_workers = compose_override.own_workers(project)
    counts = dict(parse_scale(argument, own_workers) for argument in scale or [])
    names = chosen_profiles(profile or [], ha=ha)
    with when_interrupted("run ./ops/stack up again to finish it"), stack_lock(project, "up", report):
        heading("Pre-flight: no impact yet")
        settings = settings_file.read(project)
        if names:
            report_stopped_profiles(settings, names)
            settings["COMPOSE_PROFILES"] = ",".join(names)
        settings |= {replicas_variable(service): str(count) for service, count in counts.items()}
        preflight.check(project, settings)
        warn_of_other_data(settings)
        report_open_address(settings)
        report("Docker, settings, secrets, ports, memory and disk are checked")
        if advice := docker_daemon.advice():
            report(advice)

        heading("Starting")
        start_all(project, settings)
        print_urls(project, settings)


def chosen_profiles(given: list[str], *, ha: bool) -> list[str]:
    """Return the profiles that the options name, each once; empty if they name none.

    Raises:
        StackError: A profile is unknown, or two exclude each other.
    """
    if ha and given:
        raise StackError(
            "cannot use --ha with --profile: --ha names its profiles itself",
            where="--ha",
            hint=f"leave out --ha and name {', '.join(HA_PROFILES)} with others",
        )
    names = [name for argument in given for name in argument.split(",") if name]
    settings_file.check_profiles(names, "--profile")
    return list(HA_PROFILES) if ha else list(dict.fromkeys(names))


def report_stopped_profiles(settings: Mapping[str, str], names: list[str]) -> None:
    """Report the profiles that were on and that the options leave out."""
    stopped = [name for name in settings_file.profiles(settings) if name not in (*names, *DATA_PROFILES)]
    if stopped:
        options = " ".join(f"--profile {name}" for name in stopped)
        report(f"{', '.join(stopped)}: off, because --profile does not name it; to keep it, add {options}")


def warn_of_other_data(settings: dict[str, str]) -> None:
    """Report a database of the other data profile, whose content this one does not have."""
    name = settings["COMPOSE_PROJECT_NAME"]
    for profile in set(settings_file.profiles(settings)).intersection(DATA_PROFILES):
        if warning := data_tier.left_behind(profile, name, compose.volumes(name)):
            report(warning)


def report_open_address(settings: Mapping[str, str]) -> None:
    """Report what other hosts reach, unless the ports are published on this host only."""
    address = ipaddress.ip_address(settings["BIND_ADDRESS"])
    if not address.is_loopback:
        ports = ", ".join(settings[published.port] for published in published_with(settings_file.profiles(settings)))
        report(
            f"BIND_ADDRESS={address}: other hosts reach the ports {ports}, each with a log-in and without TLS; "
            "put a TLS proxy in front and list it in TRUSTED_PROXIES"
        )


def start_all(project: Project, settings: dict[str, str]) -> None:
    """Provide the images, start every service and verify the pipeline.

    Where images for observability must be pulled or built, which may take minutes, Airflow starts and runs the pipeline
    before.
    """
    from ops.images.progress_table import image_progress
    from ops.images.resolve import plan_images

    # The next `up` keeps the chosen settings if this one is interrupted.
    settings_file.write(project, settings)
    with image_errors(), image_progress(report) as progress:
        plan = plan_images(project.root, progress, settings_file.profiles(settings))
        images = plan.core()
        if missing := plan.missing_rest():
            report(f"Airflow starts first; images that follow: {', '.join(missing)}")
            configure(project, settings, images)
            start(project, settings, core_services(compose.config(project)))
            verify_pipeline(project, settings)
        images |= plan.rest()
    configure(project, settings, images)
    start(project, settings)
    verify_pipeline(project, settings)


@contextmanager
def image_errors() -> Iterator[None]:
    """Turn an ImageError into the error of a command."""
    from ops.images.resolve import ImageError

    try:
        yield
    except ImageError as error:
        raise StackError(str(error), hint="fix the cause above, then run ./ops/stack up again", code=FAILURE) from error


def configure(project: Project, settings: dict[str, str], images: Mapping[str, ResolvedImage]) -> None:
    """Write everything that `docker compose up` reads: settings, secrets, rules and routes.

    Raises:
        StackError: An image would skip patches, or a file cannot be written.
    """
    machine = preflight.machine_memory()
    settings |= container_limits.size_workers(settings, machine)
    settings |= {key: image.reference for key, image in images.items()}
    derive_settings(settings, set(images), secrets_store.optional(project))
    # DATA_TIER selects the nodes that Prometheus queries through the exporters: compose/prometheus/targets.
    settings["DATA_TIER"] = "data-ha" if "data-ha" in settings_file.profiles(settings) else "data"
    settings["REDIS_EXPORTER_USER"] = redis_users.EXPORTER if settings_file.has_own_data(settings) else ""
    settings["STACK_IMAGES_ORIGIN"] = ",".join(f"{key}={image.origin}" for key, image in images.items())
    origins = sorted({image.origin for image in images.values()})
    report(f"images: {len(images)}, {' and '.join(origins)}")
    official = {key: image.reference for key, image in images.items() if image.origin == "official"}
    for fault in known_faults(project.root, official):
        report(f"{fault}; hint: set the version in compose/images.env")

    if created := secrets_store.generate(project):
        report(f"created {len(created)} secrets in {project.shown(project.secrets)}")
    secrets_store.mount(project, settings, settings["AIRFLOW_IMAGE"])
    if settings_file.write(project, settings):
        report(f"settings: {project.shown(project.env_file)}")
    model = compose.config(project)
    patch_report.check_images(model, settings)
    if generated_config.write(project, settings):
        report(f"rules and routes: {project.shown(project.generated)}")
    report(container_limits.summary(settings, container_limits.total(model), machine))


def core_services(model: Mapping[str, Any]) -> list[str]:
    """Return the services of a compose model that run without the profile `observability`."""
    observability = {published.profile for published in PUBLISHED if chosen_profile(published) == OBSERVABILITY}
    return [
        name for name, service in model["services"].items() if observability.isdisjoint(service.get("profiles", []))
    ]


def start(project: Project, settings: Mapping[str, str], services: list[str] | None = None) -> None:
    """Start services, stop those whose profile is off, and wait until all are healthy.

    Args:
        project: The stack.
        settings: Its settings.
        services: Start only these and stop none; None for all.

    Raises:
        StackError: A service does not become healthy.
    """
    name = settings["COMPOSE_PROJECT_NAME"]
    running = compose.instances(name)
    model = compose.config(project)
    if warning := worker_slots.shortage(model):
        report(warning)
    if services is None:
        stop_surplus(project, model, running)
    # Compose does not notice a secret file with new content; a container keeps the one that it started with.
    outdated = outdated_services(model, running, secrets_store.mounted_since(project))
    if outdated and outdated <= set(ALERTMANAGERS):
        recreate(project, report, sorted(outdated))
        outdated = set()
    options = [*([] if services else ["--remove-orphans"]), *(["--force-recreate"] if outdated else [])]
    roll_out(project, report, *options, services=services or ())
    generated_config.load(project, name)
    if "data-ha" in settings_file.profiles(settings):
        data_tier.apply_cluster_settings(project, name, report)


def stop_surplus(project: Project, model: Mapping[str, Any], running: Mapping[str, list[compose.Instance]]) -> None:
    """Remove the containers of services whose profile is off, which compose leaves running."""
    if surplus := running.keys() - model["services"].keys():
        known = compose.config(project, "--profile=*")["services"].keys()
        if off := sorted(surplus & known):
            report(f"stopped, because their profile is off: {', '.join(off)}")
            compose.run(project, report, "--profile=*", "rm", "--stop", "--force", *off)


def outdated_services(
    model: Mapping[str, Any], by_service: Mapping[str, list[compose.Instance]], since: Mapping[str, float]
) -> set[str]:
    """Return the services with a container that is older than a secret that it reads.

    Args:
        model: The compose model.
        by_service: The containers.
        since: When the secret files of each reader were written, in seconds since the epoch.
    """
    outdated = set()
    for name, instances in by_service.items():
        used = [secret["source"] for secret in model["services"].get(name, {}).get("secrets", [])]
        readers = {Path(model["secrets"][source]["file"]).parent.name for source in used}
        newest = max((since.get(reader, 0.0) for reader in readers), default=0.0)
        if any(instance.created < newest for instance in instances):
            outdated.add(name)
    return outdated
