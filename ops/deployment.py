"""The deployment of a version: its settings and configuration are written, and its services start."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from ops import (
    backup_config,
    compose,
    container_limits,
    data_tier,
    external_data,
    inner_tls,
    patch_report,
    preflight,
    private_authority,
    rolling,
    rotation_state,
    secrets_store,
    settings_file,
    token_keys,
    worker_slots,
)
from ops.errors import FAILURE, StackError
from ops.images.versions import known_faults
from ops.observability import generated_config
from ops.observability.derived_settings import derive_links, derive_settings
from ops.rollout import roll_out
from ops.screen import report
from ops.services import ALERTMANAGERS, OBSERVABILITY, PUBLISHED, chosen_profile

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path
    from typing import Any

    from ops.images.resolve import ResolvedImage
    from ops.project import Project


def obtain_images(root: Path, profiles: Collection[str]) -> dict[str, ResolvedImage]:
    """Return the images of the profiles for the files of a folder, once they are on this machine.

    Raises:
        StackError: An image can neither be pulled nor built.
    """
    from ops.images.progress_table import image_progress
    from ops.images.resolve import plan_images

    with image_errors(), image_progress(report) as progress:
        plan = plan_images(root, progress, profiles)
        return plan.core() | plan.rest()


@contextmanager
def image_errors() -> Iterator[None]:
    """Turn an ImageError into the error of a command."""
    from ops.images.resolve import ImageError

    try:
        yield
    except ImageError as error:
        raise StackError(str(error), hint="fix the cause above, then run this again", code=FAILURE) from error


def configure(project: Project, settings: dict[str, str], images: Mapping[str, ResolvedImage]) -> None:
    """Write everything that `docker compose up` reads: settings, secrets, rules and routes.

    Raises:
        StackError: An image would skip patches, or a file cannot be written.
    """
    machine = preflight.machine_memory()
    settings |= container_limits.size_workers(settings, machine)
    settings |= {key: image.reference for key, image in images.items()} | backup_config.derived(settings, images)
    derive_settings(settings, set(images), secrets_store.optional(project))
    if signed := inner_tls.renew(project, settings):
        report(f"signed {len(signed)} certificates in {project.shown(private_authority.folder(project))}")
    derive_links(settings, external_data.files(project, settings))
    settings |= inner_tls.derived(settings)
    settings["STACK_IMAGES_ORIGIN"] = ",".join(f"{key}={image.origin}" for key, image in images.items())
    origins = sorted({image.origin for image in images.values()})
    report(f"images: {len(images)}, {' and '.join(origins)}")
    official = {key: image.reference for key, image in images.items() if image.origin == "official"}
    for fault in known_faults(project.root, official):
        report(f"{fault}; hint: set the version in compose/images.env")

    if created := secrets_store.generate(project):
        report(f"created {len(created)} secrets in {project.shown(project.secrets)}")
    verifiers = compose.instances(settings["COMPOSE_PROJECT_NAME"]).get(token_keys.VERIFIER, [])
    if token_keys.forget_former(project, verifiers):
        report(f"deleted {token_keys.FORMER}: no token of it is valid any more")
    secrets_store.mount(project, settings, settings["AIRFLOW_IMAGE"])
    rotation_state.note_used(project, secrets_store.generated_values(project))
    if settings_file.write(project, settings):
        report(f"settings: {project.shown(project.env_file)}")
    model = compose.config(project)
    if raised := worker_slots.raised_parallelism(model, settings):
        settings |= raised
        settings_file.write(project, settings)
        report(f"PARALLELISM={raised['PARALLELISM']}: one scheduler fills the slots of WORKER_CEILING workers")
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
    since = secrets_store.mounted_since(project)
    is_healthy = has_healthy_services(model, running)
    if is_healthy:  # replaced below, one at a time
        rolled = secrets_store.READERS if rotation_state.read(project).steps else secrets_store.ROLLED
        since = {file: written for file, written in since.items() if file.partition("/")[0] not in rolled}
    if old := rolling.with_old_secrets(model, running, since):
        old -= compose.outdated(project)  # replaced below for that reason
    outdated = {service for service, instances in running.items() if any(each.id in old for each in instances)}
    if outdated and outdated <= set(ALERTMANAGERS):
        rolling.replace_outdated(project, report, outdated)
        outdated = set()
    if not outdated and is_healthy:
        rolling.replace_outdated(project, report, services or ())
    options = [*([] if services else ["--remove-orphans"]), *(["--force-recreate"] if outdated else [])]
    roll_out(project, report, *options, services=services or ())
    generated_config.load(project, name)
    if "data-ha" in settings_file.profiles(settings):
        data_tier.apply_cluster_settings(project, name, report)


def has_healthy_services(model: Mapping[str, Any], running: Mapping[str, list[compose.Instance]]) -> bool:
    """Return whether the stack runs and is healthy, so that no container waits for another that is to be repaired.

    Services of the model that have no container yet do not count.
    """
    instances = [instance for name in model["services"] for instance in running.get(name, [])]
    return any(instance.state == "running" for instance in instances) and all(
        instance.is_healthy for instance in instances
    )


def stop_surplus(project: Project, model: Mapping[str, Any], running: Mapping[str, list[compose.Instance]]) -> None:
    """Remove the containers of services whose profile is off, which compose leaves running."""
    if surplus := running.keys() - model["services"].keys():
        known = compose.config(project, "--profile=*")["services"].keys()
        if off := sorted(surplus & known):
            report(f"stopped, because their profile is off: {', '.join(off)}")
            compose.run(project, report, "--profile=*", "rm", "--stop", "--force", *off)
