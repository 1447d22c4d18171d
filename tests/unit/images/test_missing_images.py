"""Which images for observability would have to be pulled or built."""

from __future__ import annotations

from ops.images.fallback_images import reference
from ops.images.resolve import PROFILES, missing_images, official_references
from ops.project import ROOT

OBSERVABILITY = {key for key, profile in PROFILES.items() if profile == "observability"}
PULLED_ONLY = {"GRAFANA_IMAGE", "JAEGER_IMAGE"}


def test_on_an_empty_machine_all_are_missing_but_the_optional(daemon):
    assert set(missing_images(ROOT, ["data", "observability"], {})) == OBSERVABILITY - PULLED_ONLY


def test_official_and_fallback_images_count_as_present(daemon):
    official = official_references(ROOT, {})
    fallback = OBSERVABILITY - PULLED_ONLY - {"PROMETHEUS_IMAGE"}
    daemon.has(official["PROMETHEUS_IMAGE"], *(reference(ROOT, key) for key in fallback))
    assert missing_images(ROOT, ["data", "observability"], {}) == []


def test_without_the_profile_none_is_missing(daemon):
    assert missing_images(ROOT, ["data", "flower"], {}) == []
