"""Provides an image for every service: the official one, or a fallback image.

    on this machine → used as it is    registry answers → pulled    otherwise → built from ops/images/airgap

Only images of the active profiles are provided. `compose/images.env` names the official images; a variable of the same
name in the environment wins over it.
STACK_IMAGES=official never builds a fallback image, STACK_IMAGES=airgap never uses an official image.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from ops import services
from ops.child_process import ChildFailedError
from ops.images import debian_base, fallback_images
from ops.images.build import Build, build_image, content_tag
from ops.images.debian_base import AirgapError
from ops.images.image_registry import REGISTRY_ANSWER_SECONDS, RegistryAnswers, ask_registries, pull
from ops.images.progress import LineProgress
from ops.images.versions import read_images_env

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from ops.images.progress import ImageProgress

Origin = Literal["official", "airgap"]
Choice = Literal["official", "airgap", "auto"]

AIRFLOW_IMAGE = "AIRFLOW_IMAGE"
AIRFLOW_BASE_IMAGE = "AIRFLOW_BASE_IMAGE"
AIRFLOW_REPOSITORY = "airflow-ha/airflow"
AIRFLOW_DOCKERFILE = "compose/images/airflow/Dockerfile"
UV_REQUIREMENTS = "ops/bootstrap/uv-requirements.txt"
PATRONI_IMAGE = "PATRONI_IMAGE"
PATRONI_REPOSITORY = "airflow-ha/patroni"
PATRONI_FOLDER = "compose/images/patroni"
BACKUP_IMAGE = "BACKUP_IMAGE"
BACKUP_REPOSITORY = "airflow-ha/backup"
BACKUP_FOLDER = "compose/images/backup"
DEBIAN_IMAGE = "DEBIAN_IMAGE"
# The images that we build, and what they are built on.
BUILT_ON = {
    AIRFLOW_IMAGE: (AIRFLOW_BASE_IMAGE,),
    PATRONI_IMAGE: ("POSTGRES_IMAGE", "ETCD_IMAGE"),
    BACKUP_IMAGE: ("POSTGRES_IMAGE",),
}
# The repository and the folder of the images whose only input is a folder.
BUILT_FROM = {PATRONI_IMAGE: (PATRONI_REPOSITORY, PATRONI_FOLDER), BACKUP_IMAGE: (BACKUP_REPOSITORY, BACKUP_FOLDER)}
# No service runs these as they are: the image that we build on each of them.
BASES = {AIRFLOW_BASE_IMAGE: AIRFLOW_IMAGE, "ETCD_IMAGE": PATRONI_IMAGE}

# The profile of an image; those without one are always needed.
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
# No package has these, so they have no fallback image: the stack runs without them.
OPTIONAL = {published.image: published.page.capitalize() for published in services.OPTIONAL}


@dataclass(frozen=True)
class ResolvedImage:
    """An image, and whether it is (built on) the official one or a fallback image."""

    reference: str
    origin: Origin


class ImageError(Exception):
    """An image can neither be pulled nor built; the message has the reason and a hint."""


def resolve_images(
    root: Path,
    report: Callable[[str], None],
    profiles: Collection[str],
    environ: Mapping[str, str] = os.environ,
    answer_seconds: float = REGISTRY_ANSWER_SECONDS,
) -> dict[str, ResolvedImage]:
    """Return every image that is needed, once all are on this machine.

    Takes under a second when all are there. Pulls and builds run side by side. To get the core's images first, or to
    show a table, use `plan_images`.

    Args:
        root: The repository.
        report: Takes a line of progress; called from several threads, one at a time.
        profiles: The active compose profiles.
        environ: This process's environment.
        answer_seconds: How long a registry may take for its first answer.

    Returns:
        An image for AIRFLOW_IMAGE, for PATRONI_IMAGE with the profile data-ha, for BACKUP_IMAGE with the profiles data
        and backup, and for every key of images.env that is the image of a service in these profiles; none for Grafana
        and Jaeger where theirs cannot be pulled, which is reported.

    Raises:
        ImageError: An image can neither be pulled nor built.
    """
    plan = plan_images(root, LineProgress(report), profiles, environ, answer_seconds)
    return plan.obtain(plan.images)


def plan_images(
    root: Path,
    progress: ImageProgress,
    profiles: Collection[str],
    environ: Mapping[str, str] = os.environ,
    answer_seconds: float = REGISTRY_ANSWER_SECONDS,
) -> ImagePlan:
    """Decide where each image comes from, and return a plan that provides the core's images first.

        with image_progress(report) as progress:
            plan = plan_images(root, progress, profiles)
            # plan.images: every image's expected reference, for .env, before the image is on this machine
            core = plan.core()  # Airflow and the data tier; then start them
            rest = plan.rest()  # observability, now or in a thread

    Takes at most `answer_seconds`: it probes each registry with the pull of its first image, which continues in the
    background. The images of `core()` and `rest()` may differ from `plan.images`. If a registry answers but refuses one
    image, a fallback image is built, or Grafana or Jaeger is left out. So write .env again after `rest()`.

    Args:
        root: The repository.
        progress: Shows a state for each image: `ops.images.progress_table.image_progress`.
        profiles: The active compose profiles.
        environ: This process's environment.
        answer_seconds: How long a registry may take for its first answer.

    Raises:
        ImageError: An image can neither be pulled nor built; nothing was built yet.
    """
    choice = images_choice(environ)
    official = needed_references(root, profiles, environ)
    sources = ImageSources(root, environ, choice, official, built_images(profiles))
    local = sources.local_images()
    missing = [key for key in official if key not in local and BASES.get(key) not in local]
    to_ask = sources.images_to_request(missing, local)
    answers = ask_registries(
        {key: official[key] for key in to_ask}, {key: image_name(key) for key in to_ask}, progress, answer_seconds
    )
    planned: dict[str, ResolvedImage] = {}
    left_out: list[str] = []
    for key in missing:
        if key in to_ask and key not in answers.refusals:
            planned[key] = ResolvedImage(official[key], "official")
        elif sources.can_be_left_out(key):
            left_out.append(key)
        else:
            planned[key] = sources.fallback(key, answers.refusals.get(key, f"STACK_IMAGES={choice}"))
    report_left_out(left_out, official, progress)
    return ImagePlan(sources, local, planned, answers, progress, answer_seconds)


class ImagePlan:
    """Where each image comes from; pulls and builds them on demand, each once."""

    def __init__(
        self,
        sources: ImageSources,
        local: dict[str, ResolvedImage],
        planned: dict[str, ResolvedImage],
        answers: RegistryAnswers,
        progress: ImageProgress,
        answer_seconds: float,
    ) -> None:
        self.sources = sources
        self.local = local
        self.planned = planned
        self.answers = answers
        self.progress = progress
        self.answer_seconds = answer_seconds
        self.images = self.expected_images()
        """Every image of a service by key, with the reference that it will have; not all are on this machine."""
        self.results: dict[str, Future[ResolvedImage | None]] = {}
        self.results_lock = threading.Lock()

    def core(self) -> dict[str, ResolvedImage]:
        """Return the images of Airflow and of the data tier, once they are on this machine.

        Raises:
            ImageError: An image can neither be pulled nor built.
        """
        return self.obtain([key for key in self.images if is_core(key)])

    def rest(self) -> dict[str, ResolvedImage]:
        """Return the images that the core runs without, once they are on this machine.

        Raises:
            ImageError: An image can neither be pulled nor built.
        """
        return self.obtain([key for key in self.images if not is_core(key)])

    def missing_rest(self) -> list[str]:
        """Return the image names of `rest()` that must be pulled or built, without those that may be left out."""
        missing = [key for key in self.planned if not is_core(key) and not self.sources.can_be_left_out(key)]
        return [image_name(key) for key in missing]

    def expected_images(self) -> dict[str, ResolvedImage]:
        known = self.local | self.planned
        for key in self.sources.built:
            if key not in known and all(base in known for base in BUILT_ON[key]):
                known[key] = self.sources.built_image(key, {base: known[base] for base in BUILT_ON[key]})
        order = [
            AIRFLOW_IMAGE,
            *(key for key in self.sources.official if key not in BASES),
            PATRONI_IMAGE,
            BACKUP_IMAGE,
        ]
        return {key: known[key] for key in order if key in known}

    def obtain(self, keys: Collection[str]) -> dict[str, ResolvedImage]:
        """Pull and build these images side by side; those that had to be left out are not in the result.

        Raises:
            ImageError: An image can neither be pulled nor built.
        """
        needed = [image for key in keys if key not in self.local for image in (*BUILT_ON.get(key, ()), key)]
        self.progress.expect(image_name(key) for key in needed if key not in self.local and key not in self.results)
        # Each image has a thread of its own: a compilation takes minutes and must not wait for a free thread.
        with ThreadPoolExecutor(max_workers=len(keys) + 1) as pool:
            futures = {key: pool.submit(self.image, key) for key in keys}
        images = {key: future.result() for key, future in futures.items()}
        report_left_out([key for key, image in images.items() if image is None], self.sources.official, self.progress)
        return {key: image for key, image in images.items() if image}

    def image(self, key: str) -> ResolvedImage | None:
        """Return one image once it is on this machine; None if it is left out.

        The first caller pulls or builds it, in its own thread; others wait for that.
        """
        with self.results_lock:
            is_first = key not in self.results
            result = self.results.setdefault(key, Future())
        if is_first:
            try:
                result.set_result(self.local.get(key) or self.provide(key))
            except BaseException as error:
                self.progress.finish(image_name(key), "failed")
                result.set_exception(error)
        return result.result()

    def provide(self, key: str) -> ResolvedImage | None:
        """Pull or build one image that is not on this machine; return None if it is left out."""
        if key == DEBIAN_IMAGE:
            return self.build_debian()
        if key in BUILT_ON:
            return self.build(key)
        name, image = image_name(key), self.planned[key]
        if image.origin == "official":
            reason = self.pull(key)
            if reason is not None:
                if self.sources.can_be_left_out(key):
                    self.progress.drop(name)
                    return None
                image = self.sources.fallback(key, reason)
        if image.origin == "airgap":
            self.image(DEBIAN_IMAGE)
            report = self.progress.reporter(name)
            with_image_error(lambda: fallback_images.build(self.sources.root, key, report))
        self.progress.finish(name, "ready")
        return image

    def pull(self, key: str) -> str | None:
        """Pull an official image, or wait for the pull that runs; return None, or the reason why it failed."""
        if key in self.answers.pulls:
            return self.answers.pulls[key].result.result()
        return pull(self.sources.official[key], self.progress.reporter(image_name(key)), self.answer_seconds)

    def build(self, key: str) -> ResolvedImage:
        """Build one of our images on its bases, if an image on these bases is not on this machine."""
        # Etcd's first: another caller builds Postgres' meanwhile.
        bases = {base: image for base in reversed(BUILT_ON[key]) if (image := self.image(base))}
        built = self.sources.built_image(key, bases)
        if not is_local(built.reference):
            build = self.sources.build_of(key, built.reference, bases)
            with_image_error(lambda: build_image(build, self.progress.reporter(image_name(key))))
        self.progress.finish(image_name(key), "ready")
        return built

    def build_debian(self) -> ResolvedImage:
        """Build the base of the fallback images, if it is not on this machine."""
        reference = debian_base.reference()
        if not is_local(reference):
            with_image_error(lambda: debian_base.build(self.progress.reporter("debian")))
            self.progress.finish("debian", "ready")
        return ResolvedImage(reference, "airgap")


# ---- sources -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageSources:
    """The images that may be used for each key."""

    root: Path
    environ: Mapping[str, str]
    choice: Choice
    official: Mapping[str, str]
    """The official images by key, of the active profiles only."""
    built: Collection[str] = tuple(BUILT_ON)
    """The keys of the images that we build for the active profiles."""

    def candidates(self, key: str) -> list[ResolvedImage]:
        """Return the images that may be used, the preferred one first."""
        if key in BUILT_ON:
            # The bases of a built image need not be on this machine any more.
            combinations = itertools.product(*(self.candidates(base) for base in BUILT_ON[key]))
            return [self.built_image(key, dict(zip(BUILT_ON[key], bases, strict=True))) for bases in combinations]
        candidates = []
        if self.choice != "airgap":
            candidates.append(ResolvedImage(self.official[key], "official"))
        if self.choice != "official" and key in fallback_images.FALLBACK_IMAGES:
            candidates.append(ResolvedImage(fallback_images.reference(self.root, key), "airgap"))
        return candidates

    def local_images(self) -> dict[str, ResolvedImage]:
        """Return the images that are on this machine, by key."""
        keys = [*self.official, *self.built]

        def local_image(key: str) -> ResolvedImage | None:
            return next((image for image in self.candidates(key) if is_local(image.reference)), None)

        with ThreadPoolExecutor() as pool:
            return {key: image for key, image in zip(keys, pool.map(local_image, keys), strict=True) if image}

    def built_image(self, key: str, bases: Mapping[str, ResolvedImage]) -> ResolvedImage:
        """Return an image that we build on these bases; it may not be on this machine."""
        references = [bases[base].reference for base in BUILT_ON[key]]
        origin: Origin = "official" if all(base.origin == "official" for base in bases.values()) else "airgap"
        if key == AIRFLOW_IMAGE:
            return ResolvedImage(airflow_reference(self.root, references[0]), origin)
        return ResolvedImage(built_reference(self.root, key, references), origin)

    def build_of(self, key: str, reference: str, bases: Mapping[str, ResolvedImage]) -> Build:
        arguments = {base: image.reference for base, image in bases.items()}
        if key == AIRFLOW_IMAGE:
            return Build(reference, self.root / AIRFLOW_DOCKERFILE, self.root, arguments)
        folder = self.root / BUILT_FROM[key][1]
        return Build(reference, folder / "Dockerfile", folder, arguments)

    def images_to_request(self, missing: list[str], local: Mapping[str, ResolvedImage]) -> list[str]:
        """Return the keys of the images to request from the registries.

        A machine on fallback images does not request the images that it runs without again: a second `up` is quick.
        """
        if self.choice == "airgap":
            return []
        required = [key for key in missing if not self.can_be_left_out(key)]
        runs_on_fallback_images = any(image.origin == "airgap" for image in local.values())
        return required if runs_on_fallback_images and not required else missing

    def can_be_left_out(self, key: str) -> bool:
        """Return whether the stack may run without the image: it is optional, and the user does not require it."""
        return key in OPTIONAL and self.choice != "official" and not self.environ.get(key)

    def fallback(self, key: str, reason: str) -> ResolvedImage:
        """Return the fallback image for an official image that cannot be pulled for this reason.

        Raises:
            ImageError: There is no fallback image, or the user requires the official image.
        """
        reference = self.official[key]
        if self.choice == "official":
            raise ImageError(
                f"cannot pull {reference}: {reason}\n"
                "hint: unset STACK_IMAGES to build a fallback image from packages, or use `docker load`"
            )
        # A user who names an image gets no other image.
        if key not in fallback_images.FALLBACK_IMAGES or (self.choice == "auto" and self.environ.get(key)):
            raise ImageError(f"cannot pull {key}={reference}: {reason}\nhint: load the image with `docker load`")
        return ResolvedImage(fallback_images.reference(self.root, key), "airgap")


def official_references(root: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the official images by key; the environment wins over images.env."""
    versions = read_images_env(root)
    return {key: environ.get(key) or value for key, value in versions.items() if key.endswith("_IMAGE")}


def needed_references(root: Path, profiles: Collection[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the official images of the services in these profiles, and of their bases, by key."""
    references = official_references(root, environ)
    return {key: value for key, value in references.items() if key not in PROFILES or PROFILES[key] in profiles}


def built_images(profiles: Collection[str]) -> tuple[str, ...]:
    """Return the keys of the images that we build for these profiles."""
    needs = {PATRONI_IMAGE: {"data-ha"}, BACKUP_IMAGE: {"data", "backup"}}
    return tuple(key for key in BUILT_ON if needs.get(key, set()) <= set(profiles))


def images_choice(environ: Mapping[str, str]) -> Choice:
    """Return the value of STACK_IMAGES, `auto` if it is not set.

    Raises:
        ImageError: The value is unknown.
    """
    value = environ.get("STACK_IMAGES") or "auto"
    for choice in get_args(Choice):
        if value == choice:
            return choice  # type: ignore[no-any-return]
    raise ImageError(f"cannot use STACK_IMAGES={value}\nhint: set it to one of {', '.join(get_args(Choice))}")


def airflow_reference(root: Path, base: str) -> str:
    """Return the name of the Airflow image on `base`; its tag changes with the lock, the code and the base."""
    dockerfile = root / AIRFLOW_DOCKERFILE
    inputs = [
        dockerfile,
        dockerfile.with_suffix(".dockerignore"),
        root / "pyproject.toml",
        root / "uv.lock",
        root / UV_REQUIREMENTS,
        root / "src",
    ]
    return f"{AIRFLOW_REPOSITORY}:{content_tag(root, inputs, [base])}"


def built_reference(root: Path, key: str, bases: list[str]) -> str:
    """Return the name of an image of BUILT_FROM on these bases; its tag changes with its folder and the bases."""
    repository, folder = BUILT_FROM[key]
    return f"{repository}:{content_tag(root, [root / folder], bases)}"


# ---- small helpers -----------------------------------------------------------------------------------------


def is_core(key: str) -> bool:
    """Return whether Airflow or the data tier needs the image."""
    return PROFILES.get(key) != "observability"


def image_name(key: str) -> str:
    """Return what progress calls the image, such as `haproxy` for GATEWAY_IMAGE."""
    return fallback_images.FALLBACK_IMAGES.get(key) or key.removesuffix("_IMAGE").lower().replace("_", "-")


def is_local(reference: str) -> bool:
    command = ["docker", "image", "inspect", "--format", "{{.Id}}", reference]
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0


def report_left_out(keys: list[str], official: Mapping[str, str], progress: ImageProgress) -> None:
    if keys:
        names = " and ".join(OPTIONAL[key] for key in keys)
        references = ", ".join(official[key] for key in keys)
        progress.note(f"{names} left out: cannot pull {references}, and no package has them; all else runs")


def with_image_error(build: Callable[[], None]) -> None:
    """Run a build whose failure becomes an ImageError."""
    try:
        build()
    except (AirgapError, ChildFailedError) as error:
        raise ImageError(str(error)) from error
