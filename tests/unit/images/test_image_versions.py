"""Images with a known fault are reported, and images.env names none."""

from __future__ import annotations

import pytest

from ops.images.versions import known_faults, read_images_env
from ops.project import ROOT


@pytest.fixture
def root(tmp_path):
    (tmp_path / "compose").mkdir()
    (tmp_path / "compose/minimum-versions.txt").write_text("# comment\nREDIS_IMAGE  8.2.9  https://fault\n")
    return tmp_path


def test_images_env_names_no_image_with_a_known_fault():
    images = read_images_env(ROOT)
    lines = (ROOT / "compose/minimum-versions.txt").read_text().splitlines()
    assert {line.split()[0] for line in lines if line and not line.startswith("#")} <= images.keys()
    assert known_faults(ROOT, images) == []


@pytest.mark.parametrize("reference", ["redis:8.2.8", "registry.test:5000/redis:8.2.1-alpine"])
def test_an_older_image_is_reported_with_its_fault(root, reference):
    (fault,) = known_faults(root, {"REDIS_IMAGE": reference})
    assert reference in fault
    assert "8.2.9" in fault
    assert "https://fault" in fault


@pytest.mark.parametrize("reference", ["redis:8.2.9", "redis:8.2.10", "redis:8.4.1", "redis:7.4.11", "redis:latest"])
def test_a_fixed_or_unknown_image_is_not_reported(root, reference):
    assert known_faults(root, {"REDIS_IMAGE": reference}) == []
