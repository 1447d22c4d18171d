"""Pulls images through the Docker daemon, and finds out in seconds that there is no registry to pull from."""

from __future__ import annotations

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ops.child_process import SilentChildError, output_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# A registry that can be reached says something within a second or two. None at all is a normal state of a
# machine and must not cost minutes of time-outs.
REGISTRY_ANSWER_SECONDS = 10.0
# A pull that has begun may be slow, but not silent for this long.
PULL_STALL_SECONDS = 300.0
# A registry that says no has answered: its other images are worth asking for.
REFUSALS = (
    "not found",
    "manifest unknown",
    "denied",
    "unauthorized",
    "toomanyrequests",
    "no matching manifest",
)


def registry_host(reference: str) -> str:
    """The registry that a reference points to; empty for the daemon's own default.

    https://pkg.go.dev/github.com/distribution/reference
    """
    first, slash, _ = reference.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else ""


def pull(reference: str, report: Callable[[str], None], answer_seconds: float) -> str | None:
    """Pulls one image through the daemon, which knows its own registry mirrors and proxies.

    Returns:
        None when the image is here now; otherwise why not.
    """
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

        def silent(seconds: float) -> None:
            if not last and time.monotonic() - started >= answer_seconds:
                raise SilentChildError(f"no answer within {answer_seconds:g} s")
            if seconds >= PULL_STALL_SECONDS:
                raise SilentChildError(f"the download stood still for {seconds:.0f} s")
            if last:
                report(f"{reference}: pulling, {done} of {layers} layers … {time.monotonic() - started:.0f} s")

        try:
            for line in output_lines(child.stdout, silent, heartbeat_seconds=min(answer_seconds, 10.0)):
                last = line or last
                layers += line.endswith("Pulling fs layer")
                if line.endswith(("Pull complete", "Already exists")):
                    done += 1
                    report(f"{reference}: pulling, {done} of {max(layers, done)} layers")
        except SilentChildError as silence:
            child.kill()
            return str(silence)
    return None if child.returncode == 0 else last.removeprefix("Error response from daemon: ")


def pull_all(wanted: Mapping[str, str], report: Callable[[str], None], answer_seconds: float) -> dict[str, str | None]:
    """Pulls the images by key; the value is None when it worked, otherwise why not.

    The first image of each registry is its probe: if nobody answers, its other images are not tried.
    """
    results: dict[str, str | None] = {}
    registries: dict[str, list[str]] = {}
    for key, reference in wanted.items():
        registries.setdefault(registry_host(reference), []).append(key)

    def pull_one(key: str) -> None:
        report(f"{wanted[key]}: asking the registry")
        results[key] = pull(wanted[key], report, answer_seconds)

    for host, (first, *others) in registries.items():
        pull_one(first)
        reason = results[first]
        if reason is None or any(word in reason for word in REFUSALS):
            with ThreadPoolExecutor() as pool:
                list(pool.map(pull_one, others))
        else:
            report(f"no answer from {host or 'the container registry'}: {reason}")
            results |= dict.fromkeys(others, reason)
    return results
