"""One `docker build` with this machine's package settings as secrets, and tags that name its inputs."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ops.child_process import run_with_progress
from ops.images.mirrors import proxy_arguments, write_build_secrets

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ops.images.progress import Reporter

TAG_LENGTH = 12
SHOWN_LENGTH = 100
# Python's caches beside the sources.
NOT_AN_INPUT = ("__pycache__", ".pyc")
# "#7 [redis 2/4] RUN --mount=… apt-get update" and "#7 12.78 Setting up libllvm19".
STEP = re.compile(r"^#(?P<number>\d+) \[(?P<step>(?:\S+ )?\d+/\d+)\] (?P<instruction>.+)$")
OUTPUT = re.compile(r"^#(?P<number>\d+) \d+\.\d+ +(?P<text>.+)$")
# The purpose of a step, by the first of these commands in its instruction.
PURPOSES = {
    "uv pip sync": "installing the locked Python packages",
    "-r /tmp/uv-requirements.txt": "fetching uv",
    "pip install": "installing the locked Python packages",
    "go run": "fetching and compiling Go modules",
    "go install": "fetching and compiling Go modules",
    "go build": "fetching and compiling Go modules",
    "apt-get download": "fetching packages",
    "apt-get install": "installing packages",
    "apt-get update": "reading the package lists",
}
# The lines of a step's output that show its progress.
PROGRESS_OUTPUT = ("Get:", "Need to get", "Setting up", "Prepared", "Installed", "Bytecode compiled", "Downloaded")


@dataclass(frozen=True)
class Build:
    """The input of one `docker build`."""

    reference: str
    """The tag that the image gets."""
    dockerfile: Path
    context: Path
    arguments: Mapping[str, str]
    target: str = ""
    """The stage to build; empty: the last one."""


def content_tag(root: Path, paths: Iterable[Path], values: Iterable[str] = ()) -> str:
    """Return a tag that changes with the content, the name or the executable bit of any input, and nothing else.

    Args:
        root: The folder that names are relative to, so that the same inputs in another folder give the same tag.
        paths: Files, and folders with everything in them.
        values: Other inputs, in a fixed order.
    """
    digest = hashlib.sha256()
    for path in sorted(input_files(paths)):
        executable = os.access(path, os.X_OK)
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(root).as_posix()}\0{executable}\0{content}\0".encode())
    return values_tag([digest.hexdigest(), *values])


def values_tag(values: Iterable[str]) -> str:
    """Return a tag that changes with any of the values, or their order."""
    return hashlib.sha256("".join(f"{value}\0" for value in values).encode()).hexdigest()[:TAG_LENGTH]


def input_files(paths: Iterable[Path]) -> set[Path]:
    """Return the files, and every file in the folders, without Python's caches."""
    return {
        file
        for path in paths
        for file in (path.rglob("*") if path.is_dir() else [path])
        if file.is_file() and not any(part.endswith(NOT_AN_INPUT) for part in file.parts)
    }


def build_image(build: Build, report: Reporter) -> None:
    """Build one image with BuildKit.

    Raises:
        ChildFailedError: The build failed; it carries the build's last lines.
    """
    with tempfile.TemporaryDirectory() as folder:
        secrets = write_build_secrets(Path(folder), os.environ, Path.home())
        command = ["docker", "build", "--progress", "plain", "--tag", build.reference]
        command += ["--file", str(build.dockerfile), *(["--target", build.target] if build.target else [])]
        # The machine's own network: a build reaches what the machine reaches, such as a proxy or a resolver on its
        # loopback address, or a VPN.
        command += ["--network", "host"]
        for key, value in {**proxy_arguments(os.environ), **build.arguments}.items():
            command += ["--build-arg", f"{key}={value}"]
        for key, path in secrets.items():
            command += ["--secret", f"id={key},src={path}"]
        environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
        report("building")
        run_with_progress([*command, str(build.context)], BuildSteps().describe, report, environment)
    report("built")


class BuildSteps:
    """Turns BuildKit's plain progress into short lines; keeps the step of each vertex."""

    def __init__(self) -> None:
        self.steps: dict[str, str] = {}

    def describe(self, line: str) -> str | None:
        """Return `building, redis 2/4: installing packages` for a line of progress; None for most lines."""
        if step := STEP.match(line):
            self.steps[step["number"]] = step["step"]
            purpose = next((text for command, text in PURPOSES.items() if command in step["instruction"]), None)
            return purpose and f"building, {step['step']}: {purpose}"[:SHOWN_LENGTH]
        if (output := OUTPUT.match(line)) and output["text"].startswith(PROGRESS_OUTPUT):
            text = " ".join(output["text"].split())
            step_label = self.steps.get(output["number"])
            return (f"building, {step_label}: {text}" if step_label else f"building: {text}")[:SHOWN_LENGTH]
        return "writing the image" if line.endswith("exporting layers") else None
