"""The check of links to external servers that `up` runs in a container, run on the host."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping


def link_problems(files: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Return the problem of each URL that cannot be used.

    Args:
        files: The text of each file that containers mount, by its path under secrets/mounted/.
        names: The files of the URLs.
    """
    request = {
        "urls": {name: files[f"airflow/{name}"] for name in names},
        "files": {name.partition("/")[2]: text for name, text in files.items() if name.startswith("links/")},
    }
    done = subprocess.run(
        [sys.executable, "-m", "airflow_ha.external_data"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    problems: dict[str, str] = json.loads(done.stdout)
    return problems
