"""The stand-in of the collector has the components that compose/otel-collector uses, and two more that are named."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]
KINDS = ("receivers", "processors", "exporters", "extensions")
# For who looks for a fault, and for a backend that takes gRPC only.
BEYOND = {"exporters debug", "exporters otlp"}


def configured() -> set[str]:
    """Such as `exporters otlphttp`: a component's name in a configuration has underscores, its module's has none."""
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


def test_no_component_is_built_that_is_not_configured_but_those_with_a_reason():
    assert built() - configured() == BEYOND


def test_no_version_is_written_but_that_of_images_env():
    manifest = yaml.safe_load((ROOT / "ops/images/airgap/otel-collector/manifest.yaml").read_text())
    versions = {module["gomod"].split()[1] for kind in KINDS for module in manifest[kind]}
    assert versions == {"v@VERSION@"}
