"""Where actionlint comes from: its official image where that can be had, its Go module where not."""

from __future__ import annotations

import pytest

from ops.ci import actionlint
from ops.images import debian_base, fallback_images
from ops.images.resolve import ImageError
from ops.images.versions import read_images_env
from ops.project import ROOT

OFFICIAL = f"{actionlint.REPOSITORY}:{read_images_env(ROOT)[actionlint.VERSION]}"
STAND_IN = fallback_images.reference(ROOT, actionlint.VERSION)


def image(**environ: str) -> str:
    return actionlint.image(ROOT, lambda _: None, environ)


def test_with_a_registry_the_official_image_is_pulled(daemon):
    daemon.registry("answers")
    assert image() == OFFICIAL
    assert daemon.calls("build") == []


def test_without_a_registry_it_is_compiled_once(daemon):
    daemon.has(debian_base.reference())
    assert image() == STAND_IN
    daemon.forget_calls()
    assert image() == STAND_IN
    assert daemon.calls("build") == daemon.calls("pull") == []


def test_what_is_here_is_used_without_asking_anybody(daemon):
    daemon.has(OFFICIAL, STAND_IN)
    assert image() == OFFICIAL
    assert image(STACK_IMAGES="airgap") == STAND_IN
    assert daemon.calls("pull") == []


def test_who_wants_official_images_only_gets_no_stand_in(daemon):
    daemon.has(debian_base.reference(), STAND_IN)
    with pytest.raises(ImageError, match=OFFICIAL):
        image(STACK_IMAGES="official")


def test_the_stand_in_is_of_the_version_in_images_env():
    dockerfile = (ROOT / "ops/images/airgap" / fallback_images.TOOLS[actionlint.VERSION] / "Dockerfile").read_text()
    assert "cmd/actionlint@v${VERSION}" in dockerfile
