"""Each component applies its patches, whatever settings the operator has replaced."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest

from airflow_ha.patches import loader, patch_gauge, registry
from airflow_ha.patches.guard import Guard
from airflow_ha.patches.patch_state import SKIPPED
from airflow_ha.setting_error import SettingError
from ops.project import ROOT

pytestmark = pytest.mark.processes

LOCAL_SETTINGS = """
import os
from airflow.settings import create_metadata_engine as upstreams
OWN_SETTING = "mine"
def helper():
    return "helped"
def get_dagbag_import_timeout(dag_file_path):
    return 77.0
def create_metadata_engine(sql_alchemy_conn, *, engine_args, connect_args):
    return upstreams(sql_alchemy_conn + "?made_by=operator", engine_args=engine_args, connect_args=connect_args)
"""
OWN_SETTINGS = """
from airflow.providers.celery.executors.default_celery import DEFAULT_CELERY_CONFIG
CONNECT_ARGS = {"timeout": 9}
CELERY_CONFIG = {**DEFAULT_CELERY_CONFIG, "worker_prefetch_multiplier": 2}
"""
COMPONENTS = [*(service for service in registry.SERVICES if service != "worker"), "worker-gpu"]


def run_component(component: str, home, *, local_settings: bool = True, **environment: str) -> tuple[dict, str]:
    """Run component.py as a component; return its result and its log."""
    (home / "config").mkdir(exist_ok=True)
    (home / "tmp").mkdir(exist_ok=True)
    if local_settings:
        (home / "config/airflow_local_settings.py").write_text(LOCAL_SETTINGS)
    (home / "config/own_settings.py").write_text(OWN_SETTINGS)
    process = subprocess.run(
        [sys.executable, ROOT / "tests/unit/patches/component.py"],
        env={
            **os.environ,
            "AIRFLOW_HA_COMPONENT": component,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS": "own_settings.CONNECT_ARGS",
            "AIRFLOW__CELERY__CELERY_CONFIG_OPTIONS": "own_settings.CELERY_CONFIG",
            "AIRFLOW__CELERY__EXTRA_CELERY_CONFIG": '{"imports": ["json"]}',
            "TMPDIR": str(home / "tmp"),
            "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}:{home}/config",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        cwd=home,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    *log, result = process.stdout.splitlines()
    return json.loads(result.removeprefix("RESULT ")), "\n".join(log) + process.stderr


@pytest.fixture(scope="module", params=COMPONENTS)
def process(request, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    result, log = run_component(request.param, home)
    record = json.loads((home / "tmp" / loader.STATE_FILE).read_text())
    return request.param, result, log, record


def test_each_patch_is_applied_with_operator_settings(process):
    component, result, log, record = process
    expected = {patch.name for patch in registry.component_patches(component)}
    assert {name for name, (state, _) in result["states"].items() if state == "applied"} == expected
    assert expected <= set(result["wired"])
    assert record["component"] == component
    assert set(record["patches"]) == expected
    assert f"Patches of {component} (PATCHES=all): {len(expected)} applied; skipped: none; off: none" in log


def test_local_settings_of_the_operator_work(process):
    _, result, _, _ = process
    assert result["own"] == ["mine", False, "helped"]
    assert result["timeout"] == 77.0
    assert result["engine"] == "operator"


def test_worker_has_its_steps_without_patches(tmp_path):
    result, _ = run_component("worker", tmp_path, AIRFLOW_HA_PATCHES="none")
    assert result["steps"] == ["Announcement", "ConsumptionRecord", "WorkerMetrics"]
    assert result["wired"] == []
    assert {state for state, _ in result["states"].values()} == {"off"}


@pytest.mark.parametrize("component", ["", "slack-stub"])
def test_process_of_no_component_applies_no_patch(component, monkeypatch):
    monkeypatch.setenv("AIRFLOW_HA_COMPONENT", component)
    monkeypatch.setattr(loader, "_loader", None)
    loader.load()
    assert loader.states() == {}


@pytest.fixture
def loading(monkeypatch, tmp_path, caplog):
    """The names that a fake scheduler loader applies, in order; nothing is imported."""
    applied: list[str] = []

    class Module:
        def __init__(self, name: str) -> None:
            self.name = name.rpartition(".")[2]

        def apply(self) -> None:
            if self.name == "release_leaked_slots":
                raise AttributeError("no such method")
            applied.append(self.name)

    caplog.set_level(logging.INFO)
    monkeypatch.setattr(patch_gauge, "report", lambda states: None)
    monkeypatch.setattr(loader.importlib, "import_module", Module)
    monkeypatch.setattr(loader, "register_post_import_hook", lambda hook, name: None)
    monkeypatch.setattr(loader.tempfile, "gettempdir", lambda: str(tmp_path))
    return applied


def test_patches_are_applied_once_in_registry_order(loading):
    scheduler = loader.Loader("scheduler")
    scheduler.load()
    early = [patch.name for patch in scheduler.patches if "scheduler" in patch.early]
    assert loading == early
    scheduler._started(None)
    later = [patch.name for patch in scheduler.patches if patch.name not in (*early, "release_leaked_slots")]
    assert loading == [*early, *later]
    scheduler._apply(scheduler.patches)
    assert loading == [*early, *later]


def test_failing_patch_is_skipped_and_others_are_applied(loading, caplog):
    scheduler = loader.Loader("scheduler")
    scheduler._started(None)
    assert scheduler.states["release_leaked_slots"].state == SKIPPED
    assert "skip_idle_dag_runs" in loading
    assert "cannot apply the patch release_leaked_slots" in caplog.text
    record = json.loads(loader.state_file().read_text())
    assert record["patches"]["release_leaked_slots"]["state"] == "skipped"


def test_patch_that_requires_a_skipped_one_is_skipped(loading, monkeypatch):
    requiring = {"skip_idle_dag_runs": ("release_leaked_slots",)}
    rows = [replace(patch, requires=requiring.get(patch.name, patch.requires)) for patch in registry.PATCHES]
    monkeypatch.setattr(registry, "PATCHES", rows)
    scheduler = loader.Loader("scheduler")
    scheduler._started(None)
    assert scheduler.states["skip_idle_dag_runs"] == (SKIPPED, "it requires release_leaked_slots")
    assert "skip_idle_dag_runs" not in loading


def test_invalid_setting_ends_the_component(loading, monkeypatch):
    def apply(_self: object) -> None:
        raise SettingError("cannot lease tasks")

    monkeypatch.setattr(loader.importlib, "import_module", lambda name: SimpleNamespace(apply=partial(apply, name)))
    with pytest.raises(SettingError, match="cannot lease tasks"):
        loader.Loader("scheduler")._started(None)


def test_component_starts_without_a_temporary_folder(loading, monkeypatch, caplog):
    def fail_without_folder() -> str:
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr(loader.tempfile, "gettempdir", fail_without_folder)
    loader.Loader("scheduler")._started(None)
    assert "skip_idle_dag_runs" in loading
    assert "cannot record the patch state: no usable" in caplog.text


def test_local_settings_package_works(tmp_path):
    package = tmp_path / "config/airflow_local_settings"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from .own import *\nfrom .own import OWN_SETTING, helper")
    (package / "own.py").write_text(LOCAL_SETTINGS)
    result, _ = run_component("flower", tmp_path, local_settings=False)
    assert result["own"] == ["mine", False, "helped"]
    assert result["engine"] == "operator"


def test_patch_that_does_not_fit_logs_one_error(loading, caplog, monkeypatch):
    monkeypatch.setattr(
        Guard, "misfits", lambda self, patches: {"skip_idle_dag_runs": "it is 9"} if len(list(patches)) else {}
    )
    loader.Loader("scheduler")._started(None)
    messages = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    errors = [message for message in messages if "skip_idle" in message]
    assert len(errors) == 1
    assert "it is 9" in errors[0]
    assert "hint: " in errors[0]
    assert "skip_idle_dag_runs" not in loading


def test_invalid_value_logs_an_error_and_keeps_patches(loading, caplog):
    loader.Loader("scheduler", "safty")._started(None)
    assert "PATCHES is 'safty'" in caplog.text
    assert "skip_idle_dag_runs" in loading
