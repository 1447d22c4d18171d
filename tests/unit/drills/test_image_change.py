"""A drill replaces images by others of the same content, and reverts that also after a failure."""

from __future__ import annotations

import pytest

from ops import compose, rolling, settings_file
from ops.drills import image_change
from ops.drills.catalogue import all_nodes
from ops.errors import StackError
from ops.project import ROOT, Project


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A project, and the images that its containers got."""
    project = Project(root=ROOT, state=tmp_path)
    project.env_file.write_text("AIRFLOW_IMAGE=airflow-1\nREDIS_IMAGE=redis-1\nPATRONI_IMAGE=patroni-1\n")
    used: list[str] = []

    def replace_outdated(project, report):
        settings = settings_file.read(project)
        used.append(" ".join(settings[name] for name in ("AIRFLOW_IMAGE", "REDIS_IMAGE", "PATRONI_IMAGE")))
        if len(used) == 1 and fails:
            raise StackError("not healthy")

    fails: list[bool] = []
    monkeypatch.setattr(rolling, "replace_outdated", replace_outdated)
    monkeypatch.setattr(compose, "docker", lambda *arguments: used.append(" ".join(arguments)))
    monkeypatch.setattr(image_change.subprocess, "run", lambda *_, **__: type("Built", (), {"returncode": 0}))
    return project, used, fails


def test_containers_get_the_other_image_and_the_old_one_again(images):
    project, used, _ = images
    image_change.replace_containers(project, (), print)()
    assert used == ["airflow-1-drill redis-1 patroni-1", "airflow-1 redis-1 patroni-1", "rmi airflow-1-drill"]


def test_nodes_of_the_data_tier_get_other_images(images):
    project, used, _ = images
    image_change.replace_containers(project, (*all_nodes("patroni"), *all_nodes("redis")), print)()
    assert used == [
        "airflow-1 redis-1-drill patroni-1-drill",
        "airflow-1 redis-1 patroni-1",
        "rmi patroni-1-drill redis-1-drill",
    ]


def test_failed_replacement_is_reverted(images):
    project, used, fails = images
    fails.append(True)
    with pytest.raises(StackError, match="not healthy"):
        image_change.replace_containers(project, (), print)
    assert used == ["airflow-1-drill redis-1 patroni-1", "airflow-1 redis-1 patroni-1", "rmi airflow-1-drill"]
