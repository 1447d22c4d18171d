"""The processes of the test cluster, each with its log and the file of its process id."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ops.kubernetes.cluster import networks
from ops.kubernetes.cluster.programs import folder

if TYPE_CHECKING:
    from collections.abc import Sequence

RUN: Final = Path("/run/airflow-ha-kubernetes")
"""The process ids, gone with a reboot."""
STOP_SECONDS: Final = 60.0


def log_folder() -> Path:
    """Return the folder of the logs."""
    return folder() / "log"


def start(namespace: str, name: str, command: Sequence[str]) -> None:
    """Start a process in a network namespace, in a session of its own.

    Args:
        namespace: The network namespace.
        name: The name of its log and its file.
        command: The command.
    """
    RUN.mkdir(exist_ok=True)
    log_folder().mkdir(parents=True, exist_ok=True)
    with (log_folder() / f"{name}.log").open("ab") as log:
        child = subprocess.Popen(
            networks.inside(namespace, "nice", "-n", "10", *command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (RUN / f"{name}.pid").write_text(str(child.pid), encoding="utf-8")


def is_running(name: str) -> bool:
    """Return whether a process that was started runs."""
    return _alive(_pid(name))


def stop(name: str) -> None:
    """End a process, and wait until it has ended."""
    pid = _pid(name)
    _signal(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while _alive(pid):
        if time.monotonic() > deadline:
            _signal(pid, signal.SIGKILL)
        time.sleep(0.1)
    (RUN / f"{name}.pid").unlink(missing_ok=True)


def kill_child(name: str) -> None:
    """Kill the child of a process at once: the init of a node, and with it every process of the node."""
    pid = _pid(name)
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    for child in listed.read_text(encoding="utf-8").split() if listed.exists() else []:
        _signal(int(child), signal.SIGKILL)
    deadline = time.monotonic() + STOP_SECONDS
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    (RUN / f"{name}.pid").unlink(missing_ok=True)


def _pid(name: str) -> int:
    path = RUN / f"{name}.pid"
    return int(path.read_text(encoding="utf-8")) if path.exists() else 0


def _alive(pid: int) -> bool:
    if not pid:
        return False
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # only for children of this process
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def _signal(pid: int, number: signal.Signals) -> None:
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
