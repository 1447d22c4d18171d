"""The compose files' form: one order of keys, a sentence above each service, defaults in common.yaml only."""

from __future__ import annotations

import re
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


def test_keys_of_a_service_are_in_one_order():
    unknown, unordered = {}, []
    for file in FILES:
        text = file.read_text()
        for name, service, _ in [*services(text), *service_fragments(text)]:
            keys = keys_of(service)
            if extra := set(keys) - set(KEY_ORDER):
                unknown[file.name, name] = extra
            elif keys != sorted(keys, key=KEY_ORDER.index):
                unordered.append((file.name, name, keys))
    assert (unknown, unordered) == ({}, [])


def test_a_sentence_is_above_each_service():
    without = []
    for file in FILES:
        lines = file.read_text().splitlines()
        without += [name for name, _, number in services("\n".join(lines)) if not lines[number - 1].startswith("  # ")]
    assert without == []


def test_each_file_has_a_header_of_one_to_six_lines():
    headers = {file.name: re.match(r"(#.*\n)*", file.read_text())[0].count("\n") for file in FILES}
    assert {name: lines for name, lines in headers.items() if not 1 <= lines <= 6} == {}


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
