"""Pulls images through the Docker daemon, and detects within seconds that no registry answers."""

from __future__ import annotations

import subprocess
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ops.child_process import SilentChildError, output_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ops.images.progress import ImageProgress, Reporter

# A registry that is reachable answers within a second or two. A machine without any registry is a normal case: it must
# not cost minutes of time-outs.
REGISTRY_ANSWER_SECONDS = 10.0
# A pull that has begun may be slow, but not silent for this long.
PULL_STALL_SECONDS = 300.0
# A registry that refuses an image has answered: its other images may be there.
REFUSALS = (
    "not found",
    "manifest unknown",
    "denied",
    "unauthorized",
    "toomanyrequests",
    "no matching manifest",
)
LAYER_BEGUN = "Pulling fs layer"
LAYER_DONE = ("Pull complete", "Already exists")


def registry_host(reference: str) -> str:
    """Return the registry in a reference; empty for the daemon's default.

    https://pkg.go.dev/github.com/distribution/reference
    """
    first, slash, _ = reference.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else ""


def pull(
    reference: str, report: Reporter, answer_seconds: float, on_layer: Callable[[], None] = lambda: None
) -> str | None:
    """Pull one image through the daemon, which uses its own registry mirrors and proxies.

    Args:
        reference: The image.
        report: Takes the progress.
        answer_seconds: How long the first answer may take.
        on_layer: Called when a layer comes: the registry has the image.

    Returns:
        None when the image is on this machine; otherwise the reason why not.
    """
    report(f"asking the registry for {reference}")
    with subprocess.Popen(
        ["docker", "pull", reference],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as child:
        assert child.stdout is not None  # noqa: S101 (PIPE above)
        started = time.monotonic()
        layers = done = 0
        last = ""

        def check_silence(seconds: float) -> None:
            if not last and time.monotonic() - started >= answer_seconds:
                raise SilentChildError(f"no answer within {answer_seconds:g} s")
            if seconds >= PULL_STALL_SECONDS:
                raise SilentChildError(f"the download made no progress for {seconds:.0f} s")
            if last:
                report(f"pulling, {done} of {layers} layers … {time.monotonic() - started:.0f} s")

        try:
            for line in output_lines(child.stdout, check_silence, heartbeat_seconds=min(answer_seconds, 10.0)):
                last = line or last
                layers += line.endswith(LAYER_BEGUN)
                done += line.endswith(LAYER_DONE)
                if line.endswith((LAYER_BEGUN, *LAYER_DONE)):
                    on_layer()
                if line.endswith(LAYER_DONE):
                    report(f"pulling, {done} of {max(layers, done)} layers")
        except SilentChildError as silence:
            child.kill()
            return str(silence)
    return None if child.returncode == 0 else last.removeprefix("Error response from daemon: ")


class BackgroundPull:
    """A pull in a thread; the program may end before it."""

    def __init__(self, name: str, reference: str, progress: ImageProgress, answer_seconds: float) -> None:
        self.answered = threading.Event()
        self.result: Future[str | None] = Future()
        threading.Thread(target=self.run, args=(name, reference, progress, answer_seconds), daemon=True).start()

    def run(self, name: str, reference: str, progress: ImageProgress, answer_seconds: float) -> None:
        try:
            self.result.set_result(pull(reference, progress.reporter(name), answer_seconds, self.answered.set))
        except OSError as error:
            self.result.set_exception(error)
        finally:
            self.answered.set()
        if self.result.exception() or self.result.result():
            progress.drop(name)
        else:
            progress.finish(name, "ready")

    def first_refusal(self) -> str | None:
        """Wait for the registry's first answer; return the reason if that is no image."""
        self.answered.wait()
        return self.result.result() if self.result.done() else None


@dataclass(frozen=True)
class RegistryAnswers:
    """The registries' answers."""

    pulls: dict[str, BackgroundPull]
    """The pulls that probed the registries, by the key of the first image of each registry."""
    refusals: dict[str, str]
    """The reason why an image cannot be pulled, by key."""


def ask_registries(
    references: Mapping[str, str], names: Mapping[str, str], progress: ImageProgress, answer_seconds: float
) -> RegistryAnswers:
    """Probe each registry with the pull of its first image, which continues in the background.

    If a registry does not answer, its other images are not tried.

    Args:
        references: The images, by key.
        names: The images' names in `progress`, by key.
        progress: Shows the pulls.
        answer_seconds: How long a registry may take for its first answer.
    """
    registries: dict[str, list[str]] = {}
    for key, reference in references.items():
        registries.setdefault(registry_host(reference), []).append(key)
    pulls = {
        first: BackgroundPull(names[first], references[first], progress, answer_seconds)
        for first, *_ in registries.values()
    }
    refusals: dict[str, str] = {}
    for host, (first, *others) in registries.items():
        reason = pulls[first].first_refusal()
        if reason is None:
            continue
        refusals[first] = reason
        if not any(word in reason for word in REFUSALS):
            progress.note(f"no answer from {host or 'the container registry'}: {reason}")
            refusals |= dict.fromkeys(others, reason)
    return RegistryAnswers(pulls, refusals)
