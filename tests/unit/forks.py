"""Run scripts in separate processes without a new import of Airflow: fork a process that has imported it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

FORK = """
import os, sys
exec(sys.argv[1])
for script in sys.argv[2:]:
    print(end="\\0", flush=True)
    if not os.fork():
        exec(script)
        break
    if os.wait()[1]:
        sys.exit("failed: " + script)
"""


def in_forks(imports: str, scripts: Sequence[str], **environment: str) -> list[str]:
    """Return the last line that each script prints. The scripts run one after another, after the shared imports."""
    done = subprocess.run(
        [sys.executable, "-c", FORK, imports, *scripts],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [printed.splitlines()[-1] for printed in done.stdout.split("\0")[1:]]
