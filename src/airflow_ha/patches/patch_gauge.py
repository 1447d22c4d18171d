"""What became of each patch, as a gauge of 1 with its state, sent by the main process of each component.

By a thread, since an API server that nobody asks sends nothing else; workers send it from their event loop
(telemetry/worker.py).
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
"""Seconds; mapping.yaml forgets a gauge after three."""

log = logging.getLogger(__name__)


def send(states: Mapping[str, State]) -> None:
    """Send one gauge for each patch; an error ends neither the thread nor a worker's event loop."""
    try:
        for name, found in states.items():
            stats.gauge("ha_patch_state", 1, tags={"patch": name, "state": found.state})
    except Exception:
        log.warning("cannot send the state of the patches", exc_info=True)


def report(states: Mapping[str, State]) -> None:
    """Send the states from now on, for as long as this process lives; its forks do not."""
    sending = threading.Lock()
    # A fork waits until the thread holds no lock of anybody's, which the child would find locked for ever.
    os.register_at_fork(before=sending.acquire, after_in_parent=sending.release, after_in_child=sending.release)
    pause = threading.Event()

    def run() -> None:
        while not pause.wait(INTERVAL):
            with sending:
                send(states)

    try:
        threading.Thread(target=run, name="patch-state", daemon=True).start()
    except RuntimeError as error:  # the container's limit of processes is reached
        log.warning("cannot send the state of the patches: %s", error)
