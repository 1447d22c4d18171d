"""`test`: all checks and tests."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ops.errors import FAILURE
from ops.project import ROOT
from ops.screen import console, escape, heading, report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BIN = Path(sys.executable).parent


def tracked(*patterns: str) -> list[str]:
    """Return the files of the repository, tracked or new, that match."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in listed if (ROOT / name).exists()]


def checks() -> dict[str, list[str]]:
    """Return the command of each check by name; only actionlint needs a container."""
    workflows = tracked(":(glob).github/workflows/*.yaml")
    # The schemas are part of the package, so the check needs no network.
    schema = [f"{BIN}/check-jsonschema", "--quiet", "--builtin-schema"]
    compose_files = tracked(":(glob)compose/*.yaml", ":(glob)compose/stock/*.yaml")
    return {
        "ruff": [f"{BIN}/ruff", "check", "--quiet", "."],
        "ruff format": [f"{BIN}/ruff", "format", "--check", "--quiet", "."],
        "mypy": [f"{BIN}/mypy"],
        "yamllint": [f"{BIN}/yamllint", "--strict", *tracked("*.yaml", "*.yml")],
        "shellcheck": [f"{BIN}/shellcheck", "--external-sources", "ops/stack", ".ci/run", *tracked("*.sh")],
        "hadolint": [f"{BIN}/hadolint", *tracked("*Dockerfile")],
        "compose schema": [*schema, "vendor.compose-spec", *compose_files],
        "workflow schema": [*schema, "vendor.github-workflows", *workflows],
        "action schema": [*schema, "vendor.github-actions", *tracked(".github/actions/*/action.yaml")],
        "renovate schema": [*schema, "vendor.renovate", *tracked(".github/renovate.json")],
        "kubernetes schemas": [sys.executable, "-m", "ops.kubernetes.schema_check"],
        "words": [sys.executable, "-m", "ops.ci.word_check"],
        "actionlint": [sys.executable, "-m", "ops.ci.actionlint", *workflows],
    }


CHECKS = "checks"
UNIT = "unit"
IMAGES = "images and processes"
INTEGRATION = "integration"
RESILIENCE = "resilience"


def files_with(mark: str, folder: str) -> list[str]:
    """Return the test files of a folder that use a mark: to collect all others takes longer than to read them."""
    files = sorted((ROOT / folder).rglob("test_*.py"))
    return [str(file.relative_to(ROOT)) for file in files if f"mark.{mark}" in file.read_text()]


SUITES = {
    # These tests need no containers and run in two processes. A file stays in one process, because its tests share rows
    # in Airflow's database that cannot be created twice.
    UNIT: ["tests/unit", "-m", "not processes", "--numprocesses=2", "--dist=loadfile"],
    # Tests that share containers stay in one process. They mostly wait, so there are more processes than cores. The
    # order is that of tests/images/conftest.py: xdist would begin with the many short tests, and end with the long.
    IMAGES: [
        *("tests/images", *files_with("processes", "tests/unit"), "-m", "images or processes"),
        *("--numprocesses=3", "--dist=loadgroup", "--no-loadscope-reorder"),
    ],
    INTEGRATION: ["tests/integration"],
    # The drills of every push; --drills=all runs all.
    RESILIENCE: ["tests/resilience"],
}


def test(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[PYTEST ARGS]...", help="`checks`, or arguments of pytest.")
    ] = None,
) -> None:
    """Run all checks and tests, only the checks with `checks`, or only pytest with its arguments.

    Tests that need a stack start their own beside a running one, and remove it.

    Example: ./ops/stack test tests/unit/ops -k status
    """
    if arguments and arguments != [CHECKS]:
        raise typer.Exit(pytest(arguments))
    failed = run_checks()
    if not arguments:
        failed += run_suites()
    if failed:
        console.print(f"\n[red]failed: {', '.join(failed)}[/]")
        raise typer.Exit(FAILURE)
    console.print(f"\n[green]all checks {'' if arguments else 'and tests '}pass[/]")


def run_checks() -> list[str]:
    """Run every check, print its result, and return the names of the failed checks."""
    commands = checks()
    failed = []
    # Two at a time: mypy uses one core, and takes longer than all other checks together.
    with ThreadPoolExecutor(2) as pool:
        for name, (passed, output, seconds) in zip(commands, pool.map(run_check, commands.values()), strict=True):
            if not passed:
                failed.append(name)
            print(output, end="", flush=True)
            console.print(f"{name}: {'passed' if passed else 'failed'}, {seconds:.1f} s")
    return failed


def run_check(command: list[str]) -> tuple[bool, str, float]:
    """Return whether a check passed, its output, and its duration in seconds."""
    started = time.monotonic()
    result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return result.returncode == 0, result.stdout, time.monotonic() - started


def run_suites() -> list[str]:
    """Run every suite, and return the names of what failed."""
    failed = run_suite(UNIT)
    heading("images")
    if not obtain_images():
        return [*failed, "images"]
    # The tests of images mostly wait for a timer, and get the CPU that the integration tests leave. Nothing runs beside
    # drills, which assert deadlines.
    with in_background(SUITES[IMAGES]) as finish_images:
        failed += run_suite(INTEGRATION)
        heading(f"tests: {IMAGES}, which ran meanwhile")
        if finish_images() != 0:
            failed.append(f"tests: {IMAGES}")
    return failed + run_suite(RESILIENCE)


def run_suite(name: str) -> list[str]:
    """Run a suite, and return its name if it failed."""
    heading(f"tests: {name}")
    return [] if pytest(SUITES[name]) == 0 else [f"tests: {name}"]


def obtain_images() -> bool:
    """Pull or build every image, so that suites which run at the same time find them; return whether all are there."""
    from ops.images.resolve import ImageError, resolve_images
    from ops.services import PROFILES

    try:
        resolve_images(ROOT, report, PROFILES)
    except ImageError as error:
        console.print(escape(str(error)))
        return False
    return True


@contextmanager
def in_background(arguments: list[str]) -> Iterator[Callable[[], int]]:
    """Run pytest at a low priority, without a terminal's input, for the duration of the block.

    Yields:
        Waits for pytest to end, prints its output, and returns its exit code.
    """
    command = ["nice", "--adjustment=10", sys.executable, "-m", "pytest", *arguments]
    with tempfile.TemporaryFile("w+") as output:
        child = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)

        def finish() -> int:
            status = wait_for(child)
            output.seek(0)
            shutil.copyfileobj(output, sys.stdout)
            sys.stdout.flush()
            return status

        try:
            yield finish
        finally:
            wait_for(child)


def pytest(arguments: list[str]) -> int:
    """Run pytest in the repository and return its exit code."""
    return wait_for(subprocess.Popen([sys.executable, "-m", "pytest", *arguments], cwd=ROOT))


def wait_for(child: subprocess.Popen[bytes]) -> int:
    """Return the exit code of a pytest, once it has ended.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed. pytest receives it too, and has removed its stack.
    """
    interrupted = False
    while True:
        try:
            status = child.wait()
        except KeyboardInterrupt:
            interrupted = True
            continue
        if interrupted:
            raise KeyboardInterrupt
        return status
