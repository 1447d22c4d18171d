"""The loader: applies the patches of this process's component, in the registry's order.

airflow_local_settings calls it when a process starts. It imports nothing of Airflow early: most patches wait for the
module that identifies the component (STARTS). A command such as `airflow dags list` in the same container never
imports that module, so it pays almost nothing.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from wrapt import register_post_import_hook

from airflow_ha.patches import registry
from airflow_ha.patches.guard import Guard
from airflow_ha.patches.patch_state import APPLIED, OFF, SKIPPED, State
from airflow_ha.setting_error import SettingError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from airflow_ha.patches.registry import Patch

STARTS: Final = {
    "scheduler": "airflow.jobs.scheduler_job_runner",
    "execution-api": "airflow.api_fastapi.app",
    "api-server": "airflow.api_fastapi.app",
    "dag-processor": "airflow.dag_processing.manager",
    "triggerer": "airflow.jobs.triggerer_job_runner",
    "worker": "celery.signals",
    "flower": "airflow.providers.celery.executors.celery_executor_utils",
    "migrate": "airflow.utils.db",
}
"""By service: the module that only a process of this service imports, not a command in the same container."""
WORKER_MODULES: Final = (
    "airflow_ha.health.consumption_record",
    "airflow_ha.queues.announcement",
    "airflow_ha.result_channel",
    "airflow_ha.task_process.log_ins",
    "airflow_ha.telemetry.worker_metrics",
)
"""Modules that use signals and steps of a worker's Celery. They are no patches, so PATCHES does not affect them."""
NOT_REPORTING: Final = frozenset({"worker", "flower", "migrate"})
"""Services without a thread for the gauge. A worker sends it from its event loop, Flower cannot reach telemetry and
`migrate` ends. `up` checks their image, and `status` queries Flower."""
STATE_FILE: Final = "airflow-ha-patches.json"
"""File name in the container's temporary folder; `python -m airflow_ha.patches --running` reads it."""

log = logging.getLogger(__name__)


def decide(patches: Collection[Patch], off: Mapping[str, str], guard: Guard) -> dict[str, State]:
    """Return the state that each patch should have, by name.

    Args:
        patches: The patches. The patches that they require are checked too.
        off: The reason for each patch that is switched off.
        guard: Checks whether the others fit.
    """
    names = {patch.name for patch in patches}
    required = {name for patch in patches for name in patch.requires}
    checked = [patch for patch in registry.PATCHES if patch.name in names | required and patch.name not in off]
    misfits = registry.with_dependents(guard.misfits(checked))
    states = {}
    for name in (patch.name for patch in patches):
        if name in off:
            states[name] = State(OFF, off[name])
        elif name in misfits:
            states[name] = State(SKIPPED, misfits[name])
        else:
            states[name] = State(APPLIED)
    return states


def reason_of(error: Exception) -> str:
    """Return the text of an error for a State."""
    return f"{type(error).__name__}: {error}"


def state_file() -> Path:
    """Return the path of the file in which the container's main process records the state of its patches."""
    return Path(tempfile.gettempdir()) / STATE_FILE


class Loader:
    """Applies the patches of one process.

    Args:
        component: Value of AIRFLOW_HA_COMPONENT.
        mode: Value of PATCHES.
        disabled: Value of PATCHES_DISABLED.
    """

    def __init__(self, component: str, mode: str = "all", disabled: str = "") -> None:
        self.component = component
        self.service = registry.service_of(component)
        self.patches = registry.component_patches(component)
        self.states: dict[str, State] = {}
        self.is_complete = False
        self._mode, self._invalid = mode or "all", ""
        try:
            registry.validate(mode, disabled)
        except ValueError as error:  # `up` refuses it; a container that was started by hand applies all patches
            self._mode, self._invalid = "all", str(error)
        self._off = registry.switched_off(self._mode, disabled)
        self._done: set[str] = set()

    def load(self) -> None:
        """Apply the early patches now, and register the others to be applied when their module is imported."""
        self._apply(patch for patch in self.patches if self.service in patch.early)
        for patch in self.patches:
            if patch.after:
                register_post_import_hook(partial(self._apply_one, patch), patch.after)
        register_post_import_hook(self._started, STARTS[self.service])

    def _apply_one(self, patch: Patch, _: object) -> None:
        self._apply([patch])

    def _started(self, _: object) -> None:
        self._decide(self.patches)
        if self.service == "worker":
            # Celery sends this signal in the worker's main process before it forks the pool, and nowhere else.
            signals: Any = importlib.import_module("celery.signals")
            signals.import_modules.connect(self._complete_worker, weak=False)
        else:
            self._complete()

    def _complete_worker(self, **_: Any) -> None:
        if not self.is_complete:
            self._complete()
            for module in WORKER_MODULES:
                importlib.import_module(module)

    def _complete(self) -> None:
        """Apply the remaining patches, log a summary and record the state for `--running`."""
        self.is_complete = True
        self._apply(self.patches)
        self._log()
        self._record_states()
        if self.service not in NOT_REPORTING:
            from airflow_ha.patches import patch_gauge

            patch_gauge.report(self.states)

    def _decide(self, patches: Iterable[Patch]) -> None:
        undecided = [patch for patch in patches if patch.name not in self.states]
        try:
            self.states |= decide(undecided, self._off, Guard())
        except Exception as error:
            log.exception("cannot check whether patches fit")
            self.states |= {patch.name: State(SKIPPED, reason_of(error)) for patch in undecided}

    def _apply(self, patches: Iterable[Patch]) -> None:
        """Apply, once each, the patches that fit."""
        due = [patch for patch in patches if patch.name not in self._done]
        self._decide(due)
        for patch in due:
            self._done.add(patch.name)
            if missing := [name for name in patch.requires if self._is_skipped(name)]:
                self.states[patch.name] = State(SKIPPED, f"it requires {missing[0]}")
            if self.states[patch.name].state == APPLIED:
                try:
                    importlib.import_module(f"airflow_ha.patches.{patch.name}").apply()
                except SettingError:  # the component must not run without a valid setting
                    raise
                except Exception as error:  # an error here would abort the import of an Airflow module
                    self.states[patch.name] = State(SKIPPED, reason_of(error))
                    log.exception("cannot apply the patch %s", patch.name)

    def _is_skipped(self, name: str) -> bool:
        return name in self.states and self.states[name].state == SKIPPED

    def _names_in(self, state: str) -> list[str]:
        return [name for name, current in self.states.items() if current.state == state]

    def _log(self) -> None:
        if self._invalid:
            log.error("%s. hint: correct the value in compose/.env and run ./ops/stack up", self._invalid)
        skipped, off = self._names_in(SKIPPED), self._names_in(OFF)
        for name in skipped:
            log.error(
                "cannot apply the patch %s: %s. hint: install the versions of uv.lock, or adapt the patch",
                name,
                self.states[name].reason,
            )
        log.log(
            logging.WARNING if skipped else logging.INFO,
            "Patches of %s (PATCHES=%s): %d applied; skipped: %s; off: %s",
            self.component,
            self._mode,
            len(self._names_in(APPLIED)),
            ", ".join(skipped) or "none",
            ", ".join(off) or "none",
        )

    def _record_states(self) -> None:
        record = {
            "component": self.component,
            "mode": self._mode,
            "patches": {patch.name: self.states[patch.name]._asdict() for patch in self.patches},
        }
        try:
            file = state_file()
            part = file.with_suffix(f".{os.getpid()}")
            part.write_text(json.dumps(record))
            part.replace(file)
        except OSError as error:
            log.warning("cannot record the patch state: %s", error)


_loader: Loader | None = None


def load() -> None:
    """Apply the patches of this process once, if AIRFLOW_HA_COMPONENT names an Airflow component of the stack."""
    global _loader
    component = os.environ.get("AIRFLOW_HA_COMPONENT", "")
    if _loader is None and registry.service_of(component) in registry.SERVICES:
        _loader = Loader(
            component, os.environ.get("AIRFLOW_HA_PATCHES", ""), os.environ.get("AIRFLOW_HA_PATCHES_DISABLED", "")
        )
        _loader.load()


def states() -> Mapping[str, State]:
    """Return the state of each patch in this process."""
    return _loader.states if _loader else {}
