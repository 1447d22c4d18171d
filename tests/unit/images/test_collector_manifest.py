"""The collector's fallback image has the components that compose/otel-collector uses, and two more."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]
KINDS = ("receivers", "processors", "exporters", "extensions")
# To find errors, and for a backend that accepts only gRPC.
EXTRA = {"exporters debug", "exporters otlp"}


def configured() -> set[str]:
    """Names such as `exporters otlphttp`, without underscores, as in the name of a component's module."""
    files = [yaml.safe_load(path.read_text()) for path in (ROOT / "compose/otel-collector").glob("*.yaml")]
    return {
        f"{kind} {name.split('/')[0].replace('_', '')}"
        for file in files
        for kind in KINDS
        for name in file.get(kind, {})
    }


def built() -> set[str]:
    manifest = yaml.safe_load((ROOT / "ops/images/airgap/otel-collector/manifest.yaml").read_text())
    modules = {(kind, module["gomod"].split()[0].rsplit("/", 1)[1]) for kind in KINDS for module in manifest[kind]}
    return {f"{kind} {re.sub(f'{kind[:-1]}$', '', name)}" for kind, name in modules}


def test_every_configured_component_is_built():
    assert configured() - built() == set()


def test_only_two_components_are_built_but_not_configured():
    assert built() - configured() == EXTRA


def test_every_component_has_the_version_of_images_env():
    manifest = yaml.safe_load((ROOT / "ops/images/airgap/otel-collector/manifest.yaml").read_text())
    versions = {module["gomod"].split()[1] for kind in KINDS for module in manifest[kind]}
    assert versions == {"v@VERSION@"}
