"""A drill replaces Airflow's image by another one of the same content, and reverts that also after a failure."""

from __future__ import annotations

import pytest

from ops import compose, rolling, settings_file
from ops.drills import image_change
from ops.errors import StackError
from ops.project import ROOT, Project


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A project, and the images that its containers got."""
    project = Project(root=ROOT, state=tmp_path)
    project.env_file.write_text("AIRFLOW_IMAGE=airflow-1\n")
    used: list[str] = []

    def replace_outdated(project, report):
        used.append(settings_file.read(project)["AIRFLOW_IMAGE"])
        if used == ["airflow-1-drill"] and fails:
            raise StackError("not healthy")

    fails: list[bool] = []
    monkeypatch.setattr(rolling, "replace_outdated", replace_outdated)
    monkeypatch.setattr(compose, "docker", lambda *arguments: used.append(" ".join(arguments)))
    monkeypatch.setattr(image_change.subprocess, "run", lambda *_, **__: type("Built", (), {"returncode": 0}))
    return project, used, fails


def test_containers_get_the_other_image_and_the_old_one_again(images):
    project, used, _ = images
    image_change.replace_containers(project, print)()
    assert used == ["airflow-1-drill", "airflow-1", "rmi airflow-1-drill"]


def test_failed_replacement_is_reverted(images):
    project, used, fails = images
    fails.append(True)
    with pytest.raises(StackError, match="not healthy"):
        image_change.replace_containers(project, print)
    assert used == ["airflow-1-drill", "airflow-1", "rmi airflow-1-drill"]
