"""`up`: start the stack and verify it with a run of the ML pipeline."""

from __future__ import annotations

import ipaddress
import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ops import (
    backup_config,
    compose,
    compose_override,
    data_tier,
    docker_daemon,
    external_data,
    preflight,
    rotation_state,
    secrets_store,
    settings_file,
)
from ops.backup import repository
from ops.deployment import configure, core_services, image_errors, start
from ops.errors import StackError, when_interrupted
from ops.lock import stack_lock
from ops.pipeline import verify_pipeline
from ops.project import current_project
from ops.rotation import steps
from ops.rotation.servers import Servers
from ops.scaling import parse_scale
from ops.screen import heading, report
from ops.services import (
    DATA_PROFILES,
    DEFAULT_PROFILES,
    PROFILES,
    published_with,
    replicas_variable,
)
from ops.status_tables import print_urls
from ops.upgrade import journal

if TYPE_CHECKING:
    from collections.abc import Mapping

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
        journal.refuse_unfinished(project, "up")
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
            report(f"Docker daemon, advice only: {advice} (ops/README.md, Docker daemon)")

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
        check_backup_server(project, settings, images)
        check_external_servers(project, settings, images)
        if missing := plan.missing_rest():
            report(f"Airflow starts first; images that follow: {', '.join(missing)}")
            configure(project, settings, images)
            start(project, settings, core_services(compose.config(project)))
            verify_pipeline(project, settings)
        images |= plan.rest()
    configure(project, settings, images)
    start(project, settings)
    finish_rotation(project, settings)
    verify_pipeline(project, settings)


def finish_rotation(project: Project, settings: dict[str, str]) -> None:
    """Finish a rotation of secrets that was interrupted, or waited for the end of tokens."""
    if rotation_state.read(project).due(time.time()):
        report("a rotation of secrets is unfinished: it continues")
        steps.finish(project, Servers(project, settings, report), report)


def check_external_servers(project: Project, settings: dict[str, str], images: Mapping[str, ResolvedImage]) -> None:
    """Refuse an external Postgres or Redis to which a client cannot log in: only an image has all drivers."""
    if settings_file.has_own_data(settings):
        return
    if created := secrets_store.generate(project):
        report(f"created {len(created)} secrets in {project.shown(project.secrets)}")
    mounted = secrets_store.mounted_files(project, settings)
    for warning in external_data.verify_links(settings, mounted, images["AIRFLOW_IMAGE"].reference):
        report(warning)


def check_backup_server(project: Project, settings: dict[str, str], images: Mapping[str, ResolvedImage]) -> None:
    """Refuse settings that the S3 server of the backups refuses: only an engine in an image can ask it."""
    running = compose.in_state(compose.instances(settings["COMPOSE_PROJECT_NAME"]), "running")
    image = backup_config.derived(settings, images)["BACKUP_IMAGE"]
    if warning := repository.check_s3(project, settings, image, is_running=bool(running)):
        report(warning)
