"""One `docker build` with this machine's package settings as secrets, and tags that name its inputs."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ops.child_process import run_with_progress
from ops.images.mirrors import proxy_arguments, write_build_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

TAG_LENGTH = 12
SHOWN_LENGTH = 110
# What Python leaves beside the sources.
NOT_AN_INPUT = ("__pycache__", ".pyc")
# "#7 [stage-0 2/4] RUN --mount=… apt-get update" and "#7 12.78 Setting up libllvm19".
_STEP = re.compile(r"^#\d+ \[(?:\S+ )?\d+/\d+\] (?P<instruction>.+)$")
_OUTPUT = re.compile(r"^#\d+ \d+\.\d+ +(?P<text>.+)$")
# What a step is about, for people: the first of these commands that is in it.
_PURPOSES = {
    "uv pip sync": "installing the locked Python packages",
    "pip install --quiet --no-cache-dir --timeout 120 --require-hashes": "installing the locked Python packages",
    "pip install": "fetching uv",
    "go run": "fetching and compiling Go modules",
    "go install": "fetching and compiling Go modules",
    "go build": "fetching and compiling Go modules",
    "apt-get download": "fetching packages",
    "apt-get install": "installing packages",
    "apt-get update": "reading the package lists",
}
# Of a step's output, what tells how far it is; the rest would be noise.
_TELLING = ("Get:", "Need to get", "Setting up", "Prepared", "Installed", "Bytecode compiled", "Downloaded")


def content_tag(root: Path, paths: Iterable[Path], values: Iterable[str] = ()) -> str:
    """A tag that changes with the content, the name or the executable bit of any input, and nothing else.

    Args:
        root: The folder that names are taken from, so that the same inputs elsewhere give the same tag.
        paths: Files, and folders with everything in them.
        values: Other inputs, in a fixed order.
    """
    digest = hashlib.sha256()
    for path in sorted(_files(paths)):
        executable = os.access(path, os.X_OK)
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(root).as_posix()}\0{executable}\0{content}\0".encode())
    return values_tag([digest.hexdigest(), *values])


def values_tag(values: Iterable[str]) -> str:
    """A tag that changes with any of the values, or their order."""
    return hashlib.sha256("".join(f"{value}\0" for value in values).encode()).hexdigest()[:TAG_LENGTH]


def _files(paths: Iterable[Path]) -> set[Path]:
    return {
        file
        for path in paths
        for file in (path.rglob("*") if path.is_dir() else [path])
        if file.is_file() and not any(part.endswith(NOT_AN_INPUT) for part in file.parts)
    }


def build_image(
    reference: str,
    dockerfile: Path,
    context: Path,
    arguments: Mapping[str, str],
    report: Callable[[str], None],
) -> None:
    """Builds one image with BuildKit and tags it.

    Raises:
        ChildFailedError: The build failed; it carries the build's last lines.
    """
    name = reference.rsplit(":", 1)[0].rsplit("/", 1)[-1].removeprefix("airgap-")
    with tempfile.TemporaryDirectory() as folder:
        secrets = write_build_secrets(Path(folder), os.environ, Path.home())
        build_arguments = {**proxy_arguments(os.environ), **arguments}
        command = ["docker", "build", "--progress", "plain", "--tag", reference, "--file", str(dockerfile)]
        # The machine's own network, so that a build reaches what the machine reaches: a proxy or a resolver
        # on its loopback address, a VPN.
        command += ["--network", "host"]
        for key, value in build_arguments.items():
            command += ["--build-arg", f"{key}={value}"]
        for key, path in secrets.items():
            command += ["--secret", f"id={key},src={path}"]
        environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
        run_with_progress([*command, str(context)], lambda line: build_progress(name, line), report, environment)
    report(f"{name}: built")


def build_progress(name: str, line: str) -> str | None:
    """What one line of BuildKit's plain progress says to people; None for most of them."""
    text = None
    if step := _STEP.match(line):
        text = next((text for command, text in _PURPOSES.items() if command in step["instruction"]), None)
    elif (output := _OUTPUT.match(line)) and output["text"].startswith(_TELLING):
        text = " ".join(output["text"].split())
    elif line.endswith("exporting layers"):
        text = "writing the image"
    return f"{name}: {text}"[:SHOWN_LENGTH] if text else None
