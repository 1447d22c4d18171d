"""`test`: every check and every test."""

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
    """The files of the repository, tracked or new, that match."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in listed if (ROOT / name).exists()]


def checks() -> dict[str, list[str]]:
    """The checks by name; all but actionlint without a container."""
    workflows = tracked(":(glob).github/workflows/*.yaml")
    # The schemas come with the package: nothing is fetched.
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
        "actionlint": [sys.executable, "-m", "ops.ci.actionlint", *workflows],
    }


CHECKS = "checks"
SUITES = {
    # Without containers, in two processes. A file stays in one of them: what its tests share, as a run in Airflow's
    # database, cannot be made twice there.
    "unit": ["tests/unit", "--numprocesses=2", "--dist=loadfile"],
    # Most of its tests wait for a timer of Alertmanager's. Those that share containers stay in one process.
    "images": ["tests/images", "--numprocesses=3", "--dist=loadgroup"],
    "integration": ["tests/integration"],
    # The drills of every run; all of them with --drills=all.
    "resilience": ["tests/resilience"],
}


def test(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[PYTEST ARGS]...")] = None,
) -> None:
    """Run every check and every test; `checks` alone; or pytest alone, with the arguments given.

    The tests that need a stack bring up one of their own, beside a live one, and remove it.
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
    """Runs every check, and says how each went; returns the names of those that failed."""
    commands = checks()
    failed = []
    # Two at a time: mypy, which has no use for a second core, takes longer than all others together.
    with ThreadPoolExecutor(2) as pool:
        for name, (well, said, seconds) in zip(commands, pool.map(run_check, commands.values()), strict=True):
            if not well:
                failed.append(name)
            print(said, end="", flush=True)
            console.print(f"{name}: {'well' if well else 'failed'}, {seconds:.1f} s")
    return failed


def run_check(command: list[str]) -> tuple[bool, str, float]:
    """Whether a check finds nothing, what it says, and its seconds."""
    started = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode == 0, done.stdout, time.monotonic() - started


def pytest(arguments: list[str]) -> int:
    """Runs pytest in the repository; returns its exit code."""
    child = subprocess.Popen([sys.executable, "-m", "pytest", *arguments], cwd=ROOT)
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue  # pytest heard it too, and takes its time to remove its stack
