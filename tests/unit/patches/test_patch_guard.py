"""A patch fits only the version and the source that it was written for."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from airflow_ha.patches import registry
from airflow_ha.patches.guard import Guard, installed_roots, source_mismatch
from airflow_ha.patches.loader import decide
from airflow_ha.patches.patch_state import SKIPPED
from ops.project import ROOT

MODULE = '''
class Worker:
    @property
    def size(self):
        return 1

    def run(self):
        """Text at the margin:
no indentation here
        """
        return {value}

if True:
    def stop(): ...

LIMIT: int = 3
'''


@pytest.fixture
def package(tmp_path):
    """Return a function that writes a package of a given version and source, and returns a guard for its folder."""

    def write(value: int = 1, version: str = "1.0", text: str = MODULE) -> Guard:
        (tmp_path / "fake/inner").mkdir(parents=True, exist_ok=True)
        (tmp_path / "fake/inner/__init__.py").write_text(text.replace("{value}", str(value)))
        information = tmp_path / "fake-1.dist-info"
        information.mkdir(exist_ok=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: fake\nVersion: {version}\n")
        return Guard([tmp_path])

    return write


@pytest.fixture
def patch(package):
    names = ("Worker.run", "Worker.size", "stop", "LIMIT")
    return registry.Patch(
        name="celery_pool_flush",
        kind="safety",
        components=frozenset({"worker"}),
        benefit="",
        cost="",
        written_for={"fake": "1.0"},
        replaces=package().digests(f"fake.inner:{name}" for name in names),
    )


def test_unchanged_package_fits(package, patch):
    assert len(patch.replaces) == 4
    assert package().misfits([patch]) == {}


def test_reindented_definition_fits(package, patch):
    reindented = MODULE.replace("if True:\n    def stop(): ...", "def stop(): ...   ")
    assert package(text=reindented).misfits([patch]) == {}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"value": 2}, "the source of fake.inner:Worker.run changed"),
        ({"version": "1.1"}, "fake is 1.1; the patch was written for 1.0"),
        (
            {"text": MODULE.replace("@property", "@property\n    @cached")},
            "the source of fake.inner:Worker.size changed",
        ),
        ({"text": MODULE.replace("LIMIT: int = 3", "LIMIT = 3")}, "the source of fake.inner:LIMIT changed"),
        ({"text": MODULE.replace("stop", "halt")}, "fake.inner:stop does not exist"),
    ],
)
def test_changed_version_or_source_does_not_fit(package, patch, change, reason):
    guard = package(**change)
    assert guard.misfits([patch])["celery_pool_flush"].startswith(reason)


def test_missing_distribution_does_not_fit(package, patch):
    missing = registry.Patch(**{**vars(patch), "written_for": {"absent": "1"}})
    assert "absent is not installed" in package().misfits([missing])["celery_pool_flush"]


IMPORTED = """
import sys
from airflow_ha.patches.__main__ import decide_all
from airflow_ha.patches.guard import Guard, source_mismatch, installed_roots
decide_all(Guard())
print([name for name in ("airflow", "celery", "sqlalchemy") if name in sys.modules])
"""


def test_check_imports_no_patched_package():
    done = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_patch_that_requires_a_skipped_one_is_skipped(monkeypatch):
    monkeypatch.setattr(Guard, "misfits", lambda self, patches: {"split_xcom_slice": "changed"})
    states = decide(registry.component_patches("execution-api"), {}, Guard())
    assert states["bound_xcom_reads"].state == SKIPPED
    assert "requires split_xcom_slice" in states["bound_xcom_reads"].reason
    assert states["open_session_on_event_loop"].state == "applied"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "airflow_ha.patches", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_command_fails_if_a_patch_would_be_skipped(tmp_path):
    process = run(AIRFLOW_HA_PATCHES="safety", AIRFLOW_HA_PATCHES_DISABLED="celery_pool_flush")
    worker = json.loads(process.stdout)["components"]["worker"]
    assert process.returncode == 0
    assert worker["heartbeat_lease"]["state"] == "applied"
    assert worker["celery_pool_flush"] == {"state": "off", "reason": "PATCHES_DISABLED"}
    assert worker["reap_ended_task"]["reason"] == "PATCHES=safety"
    (tmp_path / "celery-6.dist-info").mkdir()
    (tmp_path / "celery-6.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: celery\nVersion: 6.0\n")
    other_version = run("--root", str(tmp_path))
    assert other_version.returncode == 1
    worker = json.loads(other_version.stdout)["components"]["worker"]
    assert worker["celery_pool_flush"]["reason"].startswith("celery is 6.0")
    assert worker["heartbeat_lease"]["state"] == "applied"


def test_command_fails_without_a_recorded_state(tmp_path):
    process = run("--running", TMPDIR=str(tmp_path))
    assert process.returncode == 1
    assert "no main process of Airflow has started" in process.stderr


NEXT = {"apache-airflow-core": "3.4.0b2", "apache-airflow-task-sdk": "1.4.0b2"}
SAME_SOURCE = {
    "bound_task_output",
    "clear_logger_caches_once",
    "dag_import_signals",
    "end_task_after_sigterm",
    "mask_mounted_secrets",
    "open_session_on_event_loop",
    "reap_ended_task",
    "release_leaked_slots",
}
"""Patches of Airflow whose replaced source is unchanged in NEXT."""


@pytest.mark.nightly
def test_next_airflow_skips_only_patches_of_airflow(tmp_path):
    requirements = [f"{name}=={version}" for name, version in NEXT.items()]
    pip = ROOT / ".bootstrap/bin/pip"
    subprocess.run([pip, "install", "--quiet", "--no-deps", "--target", tmp_path, *requirements], check=True)
    components = json.loads(run("--root", str(tmp_path)).stdout)["components"]
    states = {name: state for patches in components.values() for name, state in patches.items()}
    for patch in registry.PATCHES:
        changes = [f"{name} is {NEXT[name]}" for name in patch.written_for if name in NEXT]
        assert states[patch.name]["state"] == (SKIPPED if changes else "applied"), patch.name
        assert not changes or states[patch.name]["reason"].startswith(changes[0]), patch.name
    guard = Guard([tmp_path, *installed_roots()])
    airflow_patches = [patch for patch in registry.PATCHES if NEXT.keys() & patch.written_for]
    digests = guard.digests(target for patch in airflow_patches for target in patch.replaces)
    assert {patch.name for patch in airflow_patches if not source_mismatch(patch.replaces, digests)} == SAME_SOURCE
