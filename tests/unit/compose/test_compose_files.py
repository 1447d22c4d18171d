"""The compose files' form: one order of keys, a sentence above each service, defaults in common.yaml only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from tests.unit.compose.model import COMPOSE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from yaml import MappingNode

KEY_ORDER = [
    "<<", "extends", "profiles", "image", "user", "entrypoint", "command", "environment", "secrets", "volumes",
    "tmpfs", "networks", "ports", "depends_on", "healthcheck", "stop_signal", "stop_grace_period", "init", "restart",
    "read_only", "cap_drop", "security_opt", "dns_opt", "logging", "cpu_shares", "shm_size", "deploy",
]  # fmt: skip
COMMON_KEYS = {"init", "read_only", "cap_drop", "security_opt", "dns_opt", "logging"}
FILES = sorted(COMPOSE.glob("*.yaml"))


def entries(node: MappingNode, *keys: str) -> Iterator[tuple[str, MappingNode, int]]:
    """Yield name, value and line (from 0) of a mapping's entries that are mappings, below the given keys."""
    for key, value in node.value:
        if keys and key.value == keys[0]:
            yield from entries(value, *keys[1:])
        elif not keys and value.id == "mapping":
            yield key.value, value, key.start_mark.line


def services(text: str) -> list[tuple[str, MappingNode, int]]:
    # The nodes of PyYAML, not its objects: those put merged keys (<<) first and lose the order.
    return list(entries(yaml.compose(text), "services"))


def service_fragments(text: str) -> list[tuple[str, MappingNode, int]]:
    """Return the anchors (x-…) of a file that hold a part of a service."""
    return [
        entry for entry in entries(yaml.compose(text)) if entry[0].startswith("x-") and "image" in keys_of(entry[1])
    ]


def keys_of(node: MappingNode) -> list[str]:
    return [key.value for key, _ in node.value]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_keys_of_a_service_are_in_one_order(file):
    text = file.read_text()
    for name, service, _ in [*services(text), *service_fragments(text)]:
        keys = keys_of(service)
        assert set(keys) <= set(KEY_ORDER), name
        assert keys == sorted(keys, key=KEY_ORDER.index), name


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_sentence_is_above_each_service_and_file(file):
    text = file.read_text()
    lines = text.splitlines()
    header = next(number for number, line in enumerate(lines) if not line.startswith("# "))
    assert 1 <= header <= 6
    assert [name for name, _, number in services(text) if not lines[number - 1].startswith("  # ")] == []


def test_container_defaults_are_written_in_one_file():
    for file in FILES:
        if file.name != "common.yaml":
            text = file.read_text()
            repeated = {name: COMMON_KEYS & set(keys_of(node)) for name, node, _ in entries(yaml.compose(text))}
            repeated |= {name: COMMON_KEYS & set(keys_of(node)) for name, node, _ in services(text)}
            assert {name: keys for name, keys in repeated.items() if keys} == {}, file.name


@pytest.mark.parametrize(
    "text",
    [
        "services: { a: { image: x, extends: { service: y } } }",
        "services: { a: { <<: { image: x }, deploy: {}, ports: [] } }",
    ],
)
def test_a_wrong_order_is_visible_to_the_check(text):
    ((_, service, _),) = services(text)
    assert keys_of(service) != sorted(keys_of(service), key=KEY_ORDER.index)
