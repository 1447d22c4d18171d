"""Sizes are parsed with the units that each setting accepts, and shown in a readable unit."""

from __future__ import annotations

import pytest

from airflow_ha import sizes


@pytest.mark.parametrize(
    ("text", "units", "size"),
    [
        ("4m", {"m": 1_000_000}, 4_000_000),
        ("7", {"": 1, "k": 1000}, 7),
        ("7", {"k": 1000}, None),
        ("2t", sizes.DOCKER_UNITS, 2 << 40),
        ("2gb", sizes.DOCKER_UNITS, 2 << 30),
        ("2G", sizes.DOCKER_UNITS, None),
        ("m", sizes.DOCKER_UNITS, None),
        ("", sizes.DOCKER_UNITS, None),
        ("1m\n", sizes.DOCKER_UNITS, None),
    ],
)
def test_size_is_parsed_with_the_accepted_units_only(text, units, size):
    assert sizes.parse_size(text, units) == size


@pytest.mark.parametrize(("number", "text"), [(12, "12 bytes"), (3 << 20, "3 MiB"), (1536 << 20, "1.5 GiB")])
def test_size_is_shown_in_a_readable_unit(number, text):
    assert sizes.shown(number) == text
