"""The state of the patches in an image before it starts, and in running containers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from airflow_ha.patches import registry
from ops import compose, patch_report
from ops.errors import StackError
from ops.project import ROOT

APPLIED = {"state": "applied", "reason": ""}
SKIPPED = {"state": "skipped", "reason": "celery is 6.0; the patch was written for 5.6.3"}
OFF = {"state": "off", "reason": "PATCHES_DISABLED"}


def image_answer(**worker: dict[str, str]) -> str:
    return json.dumps({"mode": "all", "components": {"worker": worker}})


def test_image_with_every_patch_is_accepted(docker):
    docker.answer("airflow_ha.patches", out=image_answer(celery_pool_flush=APPLIED, heartbeat_lease=OFF))
    patch_report.check_image("image:1", {"PATCHES": "safety", "PATCHES_DISABLED": "heartbeat_lease"})
    (call,) = docker.calls()
    assert call[:3] == ["run", "--rm", "--network=none"]
    assert {"--env=AIRFLOW_HA_PATCHES=safety", "--env=AIRFLOW_HA_PATCHES_DISABLED=heartbeat_lease"} <= set(call)
    assert call[-3:] == ["image:1", "-m", "airflow_ha.patches"]


def test_image_that_would_skip_a_patch_is_refused(docker):
    docker.answer("airflow_ha.patches", out=image_answer(celery_pool_flush=SKIPPED), code=1)
    with pytest.raises(StackError) as refused:
        patch_report.check_image("image:1", {})
    assert "cannot apply 1 patch(es): celery_pool_flush: celery is 6.0" in str(refused.value)
    assert "PATCHES_DISABLED=celery_pool_flush" in str(refused.value)


def test_image_that_does_not_answer_is_refused(docker):
    docker.answer("airflow_ha.patches", err="No module named wrapt", code=1)
    with pytest.raises(StackError, match="No module named wrapt"):
        patch_report.check_image("image:1", {})


def instance(name: str, state: str = "running") -> compose.Instance:
    return compose.Instance(id=name, state=state, health="healthy", created=0.0, ports=frozenset())


def test_states_come_from_running_containers_only(docker):
    docker.answer("exec s1", out=json.dumps({"patches": {"skip_idle_dag_runs": OFF}}))
    docker.answer("exec w2", out=json.dumps({"patches": {"celery_pool_flush": SKIPPED, "heartbeat_lease": APPLIED}}))
    docker.answer("exec f1", err="no main process has started", code=1)
    states = patch_report.running_states(
        {
            "scheduler": [instance("s1")],
            "worker-gpu": [instance("w1", "exited"), instance("w2")],
            "flower": [instance("f1")],
            "postgres": [instance("p1")],
        }
    )
    assert states.keys() == {"scheduler", "worker-gpu", "flower"}
    unknown, *_ = states["flower"].values()
    assert unknown["state"] == "unknown"
    assert patch_report.unapplied_patches(states) == [
        {"patch": "skip_idle_dag_runs", "state": "off", "reason": "PATCHES_DISABLED", "components": "scheduler"},
        {"patch": "celery_pool_flush", **SKIPPED, "components": "worker-gpu"},
        *({"patch": name, **unknown, "components": "flower"} for name in states["flower"]),
    ]


def test_containers_that_differ_show_the_skipped_patch(docker):
    docker.answer("exec w1", out=json.dumps({"patches": {"celery_pool_flush": SKIPPED}}))
    docker.answer("exec w2", out=json.dumps({"patches": {"celery_pool_flush": APPLIED}}))
    for order in (["w1", "w2"], ["w2", "w1"]):
        states = patch_report.running_states({"worker": [instance(name) for name in order]})
        assert states == {"worker": {"celery_pool_flush": SKIPPED}}


def test_each_distinct_image_is_checked_once(docker):
    docker.answer("airflow_ha.patches", out=image_answer(celery_pool_flush=APPLIED))
    services = {"scheduler": "stack:1", "worker": "stack:1", "worker-gpu": "team:2"}
    model = {name: {"image": image, "environment": {"AIRFLOW_HA_COMPONENT": name}} for name, image in services.items()}
    patch_report.check_images({"services": {**model, "broker": {"image": "other:3"}}}, {})
    assert sorted(call[-3] for call in docker.calls()) == ["stack:1", "team:2"]


def test_readme_matches_the_registry():
    assert patch_report.README.read_text() == patch_report.render_readme(), "run python -m ops.patch_report --write"
    assert all(patch.name in patch_report.render_readme() for patch in registry.PATCHES)


def python(*arguments: str, path: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_query_of_a_container_is_a_command_that_it_knows(docker):
    docker.answer("exec", code=1)
    patch_report.container_states("worker", "c1")
    (call,) = docker.calls()
    arguments = call[call.index("airflow_ha.patches") - 1 :]
    process = python(*arguments, path=str(ROOT / "src"))
    assert "usage:" not in process.stderr


def test_two_copies_of_the_local_settings_are_imported(tmp_path):
    shutil.copy(ROOT / "src/airflow_local_settings.py", tmp_path)
    # A program such as pytest adds a folder that is on the path already.
    program = f"import sys; sys.path.append({str(ROOT / 'src')!r}); import airflow_local_settings"
    process = python("-c", program, path=f"{ROOT / 'src'}{os.pathsep}{tmp_path}")
    assert process.returncode == 0, process.stderr
