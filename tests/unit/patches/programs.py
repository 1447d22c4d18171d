"""Programs in this folder that run a component of Airflow in their own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ops.project import ROOT


def run_program(name: str, home: Path, *arguments: str | Path, timeout: float) -> list[Any]:
    """Run a program with its own AIRFLOW_HOME, and return the results that it printed as `RESULT` lines of JSON."""
    process = subprocess.run(
        [sys.executable, ROOT / "tests/unit/patches" / name, *arguments],
        env={
            **os.environ,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "PYTHONPATH": str(ROOT / "src"),
        },
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    lines = [line for line in process.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, process.stdout[-3000:] + process.stderr[-3000:]
    return [json.loads(line.removeprefix("RESULT ")) for line in lines]
