"""Removes the Docker objects of a test session when it ends, also when it is killed.

testcontainers leaves that to Ryuk, whose image cannot be pulled everywhere; this needs none. A child process holds the
other end of a pipe, which closes when the session ends for any reason; then it removes the session's objects.
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
"""A `docker compose up` that outlives the session may still create objects: none may appear for this long."""


@functools.cache
def session_name() -> str:
    """Return the session's name in Docker: its compose project, and the prefix of its single containers."""
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
    """Return the ids of the objects of one kind with the session's name, in the label or in their own name."""
    listing, _ = KINDS[kind]
    ids: set[str] = set()
    for chosen in (f"label=com.docker.compose.project={name}", f"name={name}-"):
        command = ["docker", *listing, "--quiet", f"--filter={chosen}"]
        ids.update(subprocess.run(command, capture_output=True, text=True, check=False).stdout.split())
    return sorted(ids)


def remove_all(name: str) -> list[str]:
    """Remove all objects with the session's name; return a line for each kind that existed, with Docker's errors."""
    existing = []
    for kind, (_, removal) in KINDS.items():
        if ids := left_behind(name, kind):
            done = subprocess.run(["docker", *removal, *ids], capture_output=True, text=True, check=False)
            existing.append(f"{kind}: {' '.join(ids)}; {done.stderr.strip() or 'removed'}")
    return existing


def remove_session(timeout: float = 300) -> None:
    """Remove all objects of this session, however long one removal takes.

    Under high load Docker once kept a network for endpoints of containers that were gone ("has active endpoints", with
    no container in it): such a network is only reported, since nothing but a restart of Docker removes it.

    Args:
        timeout: For how many seconds a removal that Docker refuses is repeated.

    Raises:
        AssertionError: A container or a volume remains; the error has Docker's reasons.
    """
    deadline = time.monotonic() + timeout
    while existing := remove_all(session_name()):
        if time.monotonic() < deadline:
            continue
        message = "\n".join([f"cannot remove the stack within {timeout:g} s:", *existing])
        if left_behind(session_name(), "container") or left_behind(session_name(), "volume"):
            raise AssertionError(message)
        print(message, file=sys.stderr)
        return


if __name__ == "__main__":
    sys.stdin.read()
    while remove_all(sys.argv[1]):
        time.sleep(QUIET_SECONDS)
