"""Each component has its patches, whatever settings the operator has put in place of the stack's."""

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
OWN = """
from airflow.providers.celery.executors.default_celery import DEFAULT_CELERY_CONFIG
CONNECT_ARGS = {"timeout": 9}
CELERY_CONFIG = {**DEFAULT_CELERY_CONFIG, "worker_prefetch_multiplier": 2}
"""
COMPONENTS = [*(service for service in registry.SERVICES if service != "worker"), "worker-gpu"]


def start(component: str, home, *, local_settings: bool = True, **environment: str) -> tuple[dict, str]:
    """What a process of a component finds, and its log."""
    (home / "config").mkdir(exist_ok=True)
    (home / "tmp").mkdir(exist_ok=True)
    if local_settings:
        (home / "config/airflow_local_settings.py").write_text(LOCAL_SETTINGS)
    (home / "config/own_settings.py").write_text(OWN)
    done = subprocess.run(
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
    assert done.returncode == 0, done.stderr[-3000:]
    *log, result = done.stdout.splitlines()
    return json.loads(result.removeprefix("RESULT ")), "\n".join(log) + done.stderr


@pytest.fixture(scope="module", params=COMPONENTS)
def process(request, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    found, log = start(request.param, home)
    noted = json.loads((home / "tmp" / loader.STATE_FILE).read_text())
    return request.param, found, log, noted


def test_each_patch_is_wired_with_the_operators_settings(process):
    component, found, log, noted = process
    expected = {patch.name for patch in registry.component_patches(component)}
    assert {name for name, (state, _) in found["states"].items() if state == "applied"} == expected
    assert expected <= set(found["wired"])
    assert noted["component"] == component
    assert set(noted["patches"]) == expected
    assert f"Patches of {component} (PATCHES=all): {len(expected)} applied; skipped: none; off: none" in log


def test_the_operators_local_settings_work(process):
    _, found, _, _ = process
    assert found["own"] == ["mine", False, "helped"]
    assert found["timeout"] == 77.0
    assert found["engine"] == "operator"


def test_a_worker_has_its_steps_whatever_patches_says(tmp_path):
    found, _ = start("worker", tmp_path, AIRFLOW_HA_PATCHES="none")
    assert found["steps"] == ["Announcement", "ConsumptionRecord", "WorkerMetrics"]
    assert found["wired"] == []
    assert {state for state, _ in found["states"].values()} == {"off"}


@pytest.mark.parametrize("component", ["", "slack-stub"])
def test_a_process_of_no_component_is_left_alone(component, monkeypatch):
    monkeypatch.setenv("AIRFLOW_HA_COMPONENT", component)
    monkeypatch.setattr(loader, "_loader", None)
    loader.load()
    assert loader.states() == {}


@pytest.fixture
def loading(monkeypatch, tmp_path, caplog):
    """A scheduler's loader that does not load; and what it applies, in order."""
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


def test_patches_are_applied_once_in_the_registrys_order(loading):
    scheduler = loader.Loader("scheduler")
    scheduler.load()
    early = [patch.name for patch in scheduler.patches if "scheduler" in patch.early]
    assert loading == early
    scheduler._started(None)
    later = [patch.name for patch in scheduler.patches if patch.name not in (*early, "release_leaked_slots")]
    assert loading == [*early, *later]
    scheduler._apply(scheduler.patches)
    assert loading == [*early, *later]


def test_a_patch_that_fails_is_skipped_and_the_others_go_on(loading, caplog):
    scheduler = loader.Loader("scheduler")
    scheduler._started(None)
    assert scheduler.states["release_leaked_slots"].state == SKIPPED
    assert "skip_idle_dag_runs" in loading
    assert "cannot apply the patch release_leaked_slots" in caplog.text
    noted = json.loads(loader.state_file().read_text())
    assert noted["patches"]["release_leaked_slots"]["state"] == "skipped"


def test_a_patch_is_skipped_with_one_that_it_requires(loading, monkeypatch):
    requiring = {"skip_idle_dag_runs": ("release_leaked_slots",)}
    rows = [replace(patch, requires=requiring.get(patch.name, patch.requires)) for patch in registry.PATCHES]
    monkeypatch.setattr(registry, "PATCHES", rows)
    scheduler = loader.Loader("scheduler")
    scheduler._started(None)
    assert scheduler.states["skip_idle_dag_runs"] == (SKIPPED, "it requires release_leaked_slots")
    assert "skip_idle_dag_runs" not in loading


def test_a_setting_that_breaks_a_promise_ends_the_component(loading, monkeypatch):
    def apply(_self: object) -> None:
        raise SettingError("cannot lease tasks")

    monkeypatch.setattr(loader.importlib, "import_module", lambda name: SimpleNamespace(apply=partial(apply, name)))
    with pytest.raises(SettingError, match="cannot lease tasks"):
        loader.Loader("scheduler")._started(None)


def test_without_a_temporary_folder_a_component_starts(loading, monkeypatch, caplog):
    def none_usable() -> str:
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr(loader.tempfile, "gettempdir", none_usable)
    loader.Loader("scheduler")._started(None)
    assert "skip_idle_dag_runs" in loading
    assert "cannot note the state of the patches: no usable" in caplog.text


def test_local_settings_that_are_a_package_work(tmp_path):
    package = tmp_path / "config/airflow_local_settings"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from .own import *\nfrom .own import OWN_SETTING, helper")
    (package / "own.py").write_text(LOCAL_SETTINGS)
    found, _ = start("flower", tmp_path, local_settings=False)
    assert found["own"] == ["mine", False, "helped"]
    assert found["engine"] == "operator"


def test_a_patch_that_does_not_fit_is_skipped_with_one_error(loading, caplog, monkeypatch):
    monkeypatch.setattr(
        Guard, "misfits", lambda self, patches: {"skip_idle_dag_runs": "it is 9"} if len(list(patches)) else {}
    )
    loader.Loader("scheduler")._started(None)
    errors = [
        one.getMessage() for one in caplog.records if one.levelname == "ERROR" and "skip_idle" in one.getMessage()
    ]
    assert len(errors) == 1
    assert "it is 9" in errors[0]
    assert "hint: " in errors[0]
    assert "skip_idle_dag_runs" not in loading


def test_a_value_that_up_refuses_is_an_error_and_patches_stay(loading, caplog):
    loader.Loader("scheduler", "safty")._started(None)
    assert "PATCHES is 'safty'" in caplog.text
    assert "skip_idle_dag_runs" in loading
