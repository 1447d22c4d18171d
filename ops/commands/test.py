"""`test`: all checks and tests."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer

from ops.errors import FAILURE
from ops.project import ROOT
from ops.screen import console, heading

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
        "words": [sys.executable, "-m", "ops.ci.word_check"],
        "actionlint": [sys.executable, "-m", "ops.ci.actionlint", *workflows],
    }


CHECKS = "checks"
SUITES = {
    # These tests need no containers and run in two processes. A file stays in one process, because its tests share rows
    # in Airflow's database that cannot be created twice.
    "unit": ["tests/unit", "-m", "not processes", "--numprocesses=2", "--dist=loadfile"],
    # Tests of images mostly wait for a timer of Alertmanager; unit tests that start processes of Airflow use the cores
    # meanwhile. Tests that share containers stay in one process.
    "images and processes": [
        *("tests/images", "tests/unit", "-m", "images or processes"),
        *("--numprocesses=4", "--dist=loadgroup"),
    ],
    "integration": ["tests/integration"],
    # The drills of every push; --drills=all runs all.
    "resilience": ["tests/resilience"],
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
    for name, suite in ({} if arguments else SUITES).items():
        heading(f"tests: {name}")
        if pytest(suite) != 0:
            failed.append(f"tests: {name}")
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


def pytest(arguments: list[str]) -> int:
    """Run pytest in the repository and return its exit code."""
    child = subprocess.Popen([sys.executable, "-m", "pytest", *arguments], cwd=ROOT)
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue  # pytest receives Ctrl-C too, and needs time to remove its stack
