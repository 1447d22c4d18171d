"""Scripts that each need their own process: forks of a process that has imported Airflow once."""

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
    """Run each script in its own fork after the shared imports; return the last line that each prints."""
    process = subprocess.run(
        [sys.executable, "-c", FORK, imports, *scripts],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return [output.splitlines()[-1] for output in process.stdout.split("\0")[1:]]
