"""actionlint runs in its official image if that can be pulled, otherwise in one built from its Go module."""

from __future__ import annotations

import pytest

from ops.ci import actionlint
from ops.images import debian_base, fallback_images
from ops.images.resolve import ImageError
from ops.images.versions import read_images_env
from ops.project import ROOT

OFFICIAL = f"{actionlint.REPOSITORY}:{read_images_env(ROOT)[actionlint.VERSION]}"
FALLBACK = fallback_images.reference(ROOT, actionlint.VERSION)


def image(**environ: str) -> str:
    return actionlint.image(ROOT, lambda _: None, environ)


def test_with_a_registry_the_official_image_is_pulled(daemon):
    daemon.registry("answers")
    assert image() == OFFICIAL
    assert daemon.calls("build") == []


def test_without_a_registry_it_is_compiled_once(daemon):
    daemon.has(debian_base.reference())
    assert image() == FALLBACK
    daemon.forget_calls()
    assert image() == FALLBACK
    assert daemon.calls("build") == daemon.calls("pull") == []


def test_a_local_image_is_used_without_a_pull(daemon):
    daemon.has(OFFICIAL, FALLBACK)
    assert image() == OFFICIAL
    assert image(STACK_IMAGES="airgap") == FALLBACK
    assert daemon.calls("pull") == []


def test_stack_images_official_uses_no_fallback_image(daemon):
    daemon.has(debian_base.reference(), FALLBACK)
    with pytest.raises(ImageError, match=OFFICIAL):
        image(STACK_IMAGES="official")
