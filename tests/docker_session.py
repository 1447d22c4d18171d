"""What a test session makes in Docker goes with it, also when the session is killed.

testcontainers leaves that to Ryuk, whose image cannot be pulled everywhere; this needs none. A child process holds the
other end of a pipe, which ends when the session does, however it ends; then it removes what bears the session's name.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time

os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"

KINDS = {
    "container": (["ps", "--all"], ["rm", "--force", "--volumes"]),
    "network": (["network", "ls"], ["network", "rm"]),
    "volume": (["volume", "ls"], ["volume", "rm", "--force"]),
}
QUIET_SECONDS = 5.0
"""A `docker compose up` that outlives the session may still make something: as long as nothing must have come."""


@functools.cache
def session_name() -> str:
    """The name of this session in Docker: the compose project's, and what the names of single containers begin with."""
    name = f"airflow-ha-test-{os.getpid()}"
    # In a session of its own, so that Ctrl-C does not end it; its output is lost when its parent is gone.
    subprocess.Popen(
        [sys.executable, __file__, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return name


def left_behind(name: str, kind: str) -> list[str]:
    """The ids of what bears the name, by its label or by its own name."""
    listing, _ = KINDS[kind]
    found: set[str] = set()
    for chosen in (f"label=com.docker.compose.project={name}", f"name={name}-"):
        command = ["docker", *listing, "--quiet", f"--filter={chosen}"]
        found.update(subprocess.run(command, capture_output=True, text=True, check=False).stdout.split())
    return sorted(found)


def remove_all(name: str) -> bool:
    """Removes what bears the name; returns whether there was anything."""
    any_found = False
    for kind, (_, removal) in KINDS.items():
        if ids := left_behind(name, kind):
            any_found = True
            subprocess.run(["docker", *removal, *ids], capture_output=True, check=False)
    return any_found


if __name__ == "__main__":
    sys.stdin.read()
    while remove_all(sys.argv[1]):
        time.sleep(QUIET_SECONDS)
