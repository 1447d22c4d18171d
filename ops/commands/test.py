"""`test`: every check and every test."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from ops.commands.screen import console, heading
from ops.errors import FAILURE
from ops.project import ROOT

BIN = Path(sys.executable).parent


def tracked(*patterns: str) -> list[str]:
    """The files of the repository, tracked or new, that match."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in listed if (ROOT / name).exists()]


def checks() -> dict[str, list[str]]:
    """The checks that need no container, by name."""
    return {
        "ruff": [f"{BIN}/ruff", "check", "--quiet", "."],
        "ruff format": [f"{BIN}/ruff", "format", "--check", "--quiet", "."],
        "mypy": [f"{BIN}/mypy"],
        "yamllint": [f"{BIN}/yamllint", "--strict", *tracked("*.yaml", "*.yml")],
        "shellcheck": [f"{BIN}/shellcheck", "--external-sources", "ops/stack", ".ci/run", *tracked("*.sh")],
        "hadolint": [f"{BIN}/hadolint", *tracked("*Dockerfile")],
    }


SUITES = {
    # Without containers: two processes, since each test is alone in its folder.
    "unit": ["tests/unit", "--numprocesses=2"],
    "images and integration": ["tests/images", "tests/integration"],
}


def test(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[PYTEST ARGS]...")] = None,
) -> None:
    """Run every check and every test; or pytest alone, with the arguments given.

    The tests that need a stack bring up one of their own, beside a live one, and remove it.
    """
    if arguments:
        raise typer.Exit(pytest(arguments))
    failed = []
    for name, command in checks().items():
        started = time.monotonic()
        if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
            failed.append(name)
        console.print(f"{name}: {'failed' if name in failed else 'well'}, {time.monotonic() - started:.1f} s")
    for name, suite in SUITES.items():
        heading(f"tests: {name}")
        if pytest(suite) != 0:
            failed.append(f"tests: {name}")
    if failed:
        console.print(f"\n[red]failed: {', '.join(failed)}[/]")
        raise typer.Exit(FAILURE)
    console.print("\n[green]all checks and tests pass[/]")


def pytest(arguments: list[str]) -> int:
    """Runs pytest in the repository; returns its exit code."""
    child = subprocess.Popen([sys.executable, "-m", "pytest", *arguments], cwd=ROOT)
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue  # pytest heard it too, and takes its time to remove its stack
