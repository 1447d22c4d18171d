"""The gauge `ha_patch_state`: value 1 for each patch, tagged with its state.

A thread in the main process sends it, because an idle API server sends nothing else. A worker sends it from its event
loop (telemetry/worker_metrics.py).
"""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Final

from airflow.observability import stats

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_ha.patches.patch_state import State

INTERVAL: Final = 30.0
"""Seconds; mapping.yaml drops a gauge after three missed intervals."""

log = logging.getLogger(__name__)


def send(states: Mapping[str, State]) -> None:
    """Send one gauge per patch. Log errors: they must end neither the thread nor a worker's event loop."""
    try:
        for name, state in states.items():
            stats.gauge("ha_patch_state", 1, tags={"patch": name, "state": state.state})
    except Exception:
        log.warning("cannot send the state of the patches", exc_info=True)


def report(states: Mapping[str, State]) -> None:
    """Start the thread that sends the states for the lifetime of this process; forks send nothing."""
    sending = threading.Lock()
    # A fork waits for the lock: else the child could inherit a lock that the thread held, and block on it forever.
    os.register_at_fork(before=sending.acquire, after_in_parent=sending.release, after_in_child=sending.release)
    pause = threading.Event()

    def run() -> None:
        while not pause.wait(INTERVAL):
            with sending:
                send(states)

    try:
        threading.Thread(target=run, name="patch-state", daemon=True).start()
    except RuntimeError as error:  # the container's process limit is reached
        log.warning("cannot send the state of the patches: %s", error)
