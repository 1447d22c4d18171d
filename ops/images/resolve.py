"""Finds an image for every service: the official one, or where that cannot be had, a stand-in.

    locally there → used as it is    registry answers → pulled    otherwise → ops/images/airgap builds a stand-in

Only those of the profiles that are on. `compose/images.env` names the official images; a variable of the same name
in the environment wins over it.
STACK_IMAGES=official never builds a stand-in, STACK_IMAGES=airgap never looks for an official image.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from ops import services
from ops.child_process import ChildFailedError
from ops.images import debian_base, fallback_images
from ops.images.build import build_image, content_tag
from ops.images.debian_base import AirgapError
from ops.images.image_registry import REGISTRY_ANSWER_SECONDS, pull_all
from ops.images.versions import read_images_env

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

Origin = Literal["official", "airgap"]
Choice = Literal["official", "airgap", "auto"]

AIRFLOW_IMAGE = "AIRFLOW_IMAGE"
AIRFLOW_BASE_IMAGE = "AIRFLOW_BASE_IMAGE"
AIRFLOW_REPOSITORY = "airflow-ha/airflow"
AIRFLOW_DOCKERFILE = "compose/images/airflow/Dockerfile"
PATRONI_IMAGE = "PATRONI_IMAGE"
PATRONI_REPOSITORY = "airflow-ha/patroni"
PATRONI_FOLDER = "compose/images/patroni"
PATRONI_BASES = ("POSTGRES_IMAGE", "ETCD_IMAGE")
# What no service runs as it is, and the image that we build on it.
BASES = {AIRFLOW_BASE_IMAGE: AIRFLOW_IMAGE, "ETCD_IMAGE": PATRONI_IMAGE}

# The profile that an image is for; those that are not here run always.
PROFILES = {
    "ETCD_IMAGE": "data-ha",
    "OTEL_COLLECTOR_IMAGE": "observability",
    "CADVISOR_IMAGE": "observability",
    "STATSD_EXPORTER_IMAGE": "observability",
    "PROMETHEUS_IMAGE": "observability",
    "ALERTMANAGER_IMAGE": "observability",
    "POSTGRES_EXPORTER_IMAGE": "observability",
    "REDIS_EXPORTER_IMAGE": "observability",
    "GRAFANA_IMAGE": "observability",
    "JAEGER_IMAGE": "observability",
}
# The stack runs without these: no package has them, so there is no stand-in.
OPTIONAL = {published.image: published.page.capitalize() for published in services.OPTIONAL}


@dataclass(frozen=True)
class ResolvedImage:
    """An image that is on this machine, and whether it is (built on) the official one or a stand-in."""

    reference: str
    origin: Origin


class ImageError(Exception):
    """An image can be had in no way; the message says why and what to do."""


def resolve_images(
    root: Path,
    report: Callable[[str], None],
    profiles: Collection[str],
    environ: Mapping[str, str] = os.environ,
    answer_seconds: float = REGISTRY_ANSWER_SECONDS,
) -> dict[str, ResolvedImage]:
    """Makes sure that every image that is needed is on this machine, and says which.

    Quick (under a second) when all are there. Pulls and builds run side by side.

    Args:
        root: The repository.
        report: Shows a line of progress to people; called from several threads, one at a time.
        profiles: The compose profiles that are on.
        environ: This process's environment.
        answer_seconds: How long a registry may take for its first answer.

    Returns:
        An image for AIRFLOW_IMAGE, for PATRONI_IMAGE with the profile data-ha, and for every key of images.env that is
        the image of a service in these profiles; none for Grafana and Jaeger where theirs cannot be pulled, which is
        reported.

    Raises:
        ImageError: An image can neither be pulled nor built.
    """
    choice = images_choice(environ)
    wanted = {
        key: official
        for key, official in official_references(root, environ).items()
        if key not in PROFILES or PROFILES[key] in profiles
    }
    say = _one_at_a_time(report)
    uv_version = read_images_env(root)["UV_VERSION"]

    with ThreadPoolExecutor() as pool:
        here = pool.map(lambda key: _find(root, key, wanted[key], choice), wanted)
        found = {key: image for key, image in zip(wanted, here, strict=True) if image}
    airflow = _find_airflow(root, uv_version, wanted[AIRFLOW_BASE_IMAGE], choice)
    patroni = _find_patroni(root, wanted, choice) if "ETCD_IMAGE" in wanted else None
    built = {key for key, image in ((AIRFLOW_IMAGE, airflow), (PATRONI_IMAGE, patroni)) if image}
    missing = [key for key in wanted if key not in found and BASES.get(key) not in built]
    to_pull = _worth_asking_for(missing, [*found.values(), airflow], choice, environ)
    pulled = pull_all({key: wanted[key] for key in to_pull}, say, answer_seconds)
    not_pulled = [key for key in missing if pulled.get(key, "not asked for") is not None]
    left_out = [key for key in not_pulled if _can_be_left_out(key, choice, environ)]
    to_build = [key for key in not_pulled if key not in left_out]
    _refuse_what_cannot_be_built(to_build, wanted, pulled, choice, environ)
    if left_out:
        say(_without(left_out, wanted))
    if to_build and not is_local(debian_base.reference()):
        _building(lambda: debian_base.build(say))

    def obtain(key: str) -> ResolvedImage:
        if key in found:
            return found[key]
        if key not in to_build:
            return ResolvedImage(wanted[key], "official")
        _building(lambda: fallback_images.build(root, key, say))
        return ResolvedImage(fallback_images.reference(root, key), "airgap")

    def obtain_airflow() -> ResolvedImage:
        if airflow:
            return airflow
        base = obtain(AIRFLOW_BASE_IMAGE)
        reference = airflow_reference(root, base.reference, uv_version)
        if not is_local(reference):
            arguments = {"AIRFLOW_BASE_IMAGE": base.reference, "UV_VERSION": uv_version}
            _building(lambda: build_image(reference, root / AIRFLOW_DOCKERFILE, root, arguments, say))
        return ResolvedImage(reference, base.origin)

    def obtain_patroni(postgres: ResolvedImage) -> ResolvedImage:
        if patroni:
            return patroni
        bases = {"POSTGRES_IMAGE": postgres, "ETCD_IMAGE": obtain("ETCD_IMAGE")}
        arguments = {key: image.reference for key, image in bases.items()}
        reference = patroni_reference(root, list(arguments.values()))
        folder = root / PATRONI_FOLDER
        if not is_local(reference):
            _building(lambda: build_image(reference, folder / "Dockerfile", folder, arguments, say))
        return ResolvedImage(reference, _origin(bases.values()))

    services = [AIRFLOW_IMAGE, *(key for key in wanted if key not in BASES and key not in left_out)]
    # All at once: what is compiled takes minutes and must not wait for a free thread.
    with ThreadPoolExecutor(max_workers=len(services) + 1) as pool:
        futures = {
            key: pool.submit(obtain_airflow) if key == AIRFLOW_IMAGE else pool.submit(obtain, key) for key in services
        }
        if "ETCD_IMAGE" in wanted:
            futures[PATRONI_IMAGE] = pool.submit(lambda: obtain_patroni(futures["POSTGRES_IMAGE"].result()))
    return {key: future.result() for key, future in futures.items()}


def missing_images(root: Path, profiles: Collection[str], environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the keys of the images for observability that `resolve_images` would have to pull or build.

    Raises:
        ImageError: STACK_IMAGES is not valid.
    """
    choice = images_choice(environ)
    needed = {
        key: official
        for key, official in official_references(root, environ).items()
        if PROFILES.get(key) in profiles and key not in BASES and not _can_be_left_out(key, choice, environ)
    }
    with ThreadPoolExecutor() as pool:
        here = pool.map(lambda key: _find(root, key, needed[key], choice), needed)
        return [key for key, image in zip(needed, here, strict=True) if image is None]


# ---- what is wanted ----------------------------------------------------------------------------------------


def official_references(root: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The official images by key, as images.env names them or the environment does instead."""
    versions = read_images_env(root)
    return {key: environ.get(key) or value for key, value in versions.items() if key.endswith("_IMAGE")}


def images_choice(environ: Mapping[str, str]) -> Choice:
    """What STACK_IMAGES asks for.

    Raises:
        ImageError: It is none of the known words.
    """
    value = environ.get("STACK_IMAGES") or "auto"
    for choice in get_args(Choice):
        if value == choice:
            return choice  # type: ignore[no-any-return]
    raise ImageError(f"STACK_IMAGES={value}: it is one of {', '.join(get_args(Choice))}")


def airflow_reference(root: Path, base: str, uv_version: str) -> str:
    """The name of the Airflow image on `base`; its tag changes with the lock, the code and the base."""
    dockerfile = root / AIRFLOW_DOCKERFILE
    inputs = [
        dockerfile,
        dockerfile.with_suffix(".dockerignore"),
        root / "pyproject.toml",
        root / "uv.lock",
        root / "src",
    ]
    return f"{AIRFLOW_REPOSITORY}:{content_tag(root, inputs, [base, uv_version])}"


def patroni_reference(root: Path, bases: list[str]) -> str:
    """The name of the Patroni image on these bases; its tag changes with its packages and the bases."""
    return f"{PATRONI_REPOSITORY}:{content_tag(root, [root / PATRONI_FOLDER], bases)}"


# ---- what is here ------------------------------------------------------------------------------------------


def is_local(reference: str) -> bool:
    """Whether the Docker daemon has the image."""
    command = ["docker", "image", "inspect", "--format", "{{.Id}}", reference]
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0


def _candidates(root: Path, key: str, official: str, choice: Choice) -> list[ResolvedImage]:
    candidates = []
    if choice != "airgap":
        candidates.append(ResolvedImage(official, "official"))
    if choice != "official" and key in fallback_images.STAND_INS:
        candidates.append(ResolvedImage(fallback_images.reference(root, key), "airgap"))
    return candidates


def _find(root: Path, key: str, official: str, choice: Choice) -> ResolvedImage | None:
    return next((image for image in _candidates(root, key, official, choice) if is_local(image.reference)), None)


def _find_airflow(root: Path, uv_version: str, official_base: str, choice: Choice) -> ResolvedImage | None:
    # Its base need not be here any more.
    for base in _candidates(root, AIRFLOW_BASE_IMAGE, official_base, choice):
        reference = airflow_reference(root, base.reference, uv_version)
        if is_local(reference):
            return ResolvedImage(reference, base.origin)
    return None


def _find_patroni(root: Path, wanted: Mapping[str, str], choice: Choice) -> ResolvedImage | None:
    for bases in itertools.product(*(_candidates(root, key, wanted[key], choice) for key in PATRONI_BASES)):
        reference = patroni_reference(root, [base.reference for base in bases])
        if is_local(reference):
            return ResolvedImage(reference, _origin(bases))
    return None


def _origin(bases: Iterable[ResolvedImage]) -> Origin:
    return "official" if all(base.origin == "official" for base in bases) else "airgap"


# ---- what is not here --------------------------------------------------------------------------------------


def _worth_asking_for(
    missing: list[str], here: list[ResolvedImage | None], choice: Choice, environ: Mapping[str, str]
) -> list[str]:
    """What to ask the registries for.

    A machine that runs on stand-ins is not asked again for what it runs without: a second `up` is quick.
    """
    if choice == "airgap":
        return []
    needed = [key for key in missing if not _can_be_left_out(key, choice, environ)]
    runs_on_stand_ins = any(image and image.origin == "airgap" for image in here)
    return needed if runs_on_stand_ins and not needed else missing


def _can_be_left_out(key: str, choice: Choice, environ: Mapping[str, str]) -> bool:
    # Unless somebody asked for it.
    return key in OPTIONAL and choice != "official" and not environ.get(key)


def _without(left_out: list[str], wanted: Mapping[str, str]) -> str:
    names = " and ".join(OPTIONAL[key] for key in left_out)
    references = ", ".join(wanted[key] for key in left_out)
    return f"{names} left out, all else runs: not in any package, and not to be pulled here ({references})"


# ---- building ----------------------------------------------------------------------------------------------


def _refuse_what_cannot_be_built(
    to_build: list[str],
    wanted: Mapping[str, str],
    pulled: Mapping[str, str | None],
    choice: Choice,
    environ: Mapping[str, str],
) -> None:
    for key in to_build:
        if choice == "official":
            raise ImageError(
                f"{wanted[key]} cannot be pulled: {pulled[key]}\n"
                "Unset STACK_IMAGES to build a stand-in from packages, or load the image with `docker load`."
            )
        if key not in fallback_images.STAND_INS or (choice == "auto" and environ.get(key)):
            # Somebody asked for this very image: another would not be what they want.
            raise ImageError(f"{key}={wanted[key]} cannot be pulled: {pulled.get(key)}")


def _building(build: Callable[[], None]) -> None:
    try:
        build()
    except (AirgapError, ChildFailedError) as error:
        raise ImageError(str(error)) from error


def _one_at_a_time(report: Callable[[str], None]) -> Callable[[str], None]:
    lock = threading.Lock()

    def say(line: str) -> None:
        with lock:
            report(line)

    return say
