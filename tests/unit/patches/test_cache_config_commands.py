"""A command that gives a setting is run once."""

from __future__ import annotations

import asyncio

import pytest
import svcs
from airflow.configuration import conf

from tests.unit.patches.loading import applied


@pytest.fixture
def ours():
    """The patch, for one test."""
    with applied("cache_config_commands"):
        yield


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """How often the command was run that gives the key of tokens."""
    count = tmp_path / "runs"
    count.touch()
    command = tmp_path / "key"
    command.write_text(f"#!/bin/sh\necho >> {count}\nprintf 'a key of thirty-two bytes, or more'\n")
    command.chmod(0o700)
    monkeypatch.delenv("AIRFLOW__API_AUTH__JWT_SECRET", raising=False)
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET_CMD", str(command))
    return lambda: len(count.read_text())


def tokens_made(number: int) -> set[str]:
    """The keys with which upstream's app would sign as many tokens."""
    from airflow.api_fastapi.auth.tokens import JWTGenerator
    from airflow.api_fastapi.execution_api.app import _jwt_generator

    async def make() -> set[str]:
        registry, keys = svcs.Registry(), set()
        registry.register_factory(JWTGenerator, _jwt_generator)
        for _ in range(number):
            async with svcs.Container(registry) as services:
                keys.add((await services.aget(JWTGenerator))._secret_key)
        return keys

    return asyncio.run(make())


@pytest.mark.usefixtures("ours")
def test_it_is_run_once_for_all_tokens(runs):
    assert tokens_made(3) == {"a key of thirty-two bytes, or more"}
    assert runs() == 1


def test_upstream_still_runs_it_for_each(runs):
    """When this fails, Airflow has fixed it: delete cache_config_commands and this file."""
    assert tokens_made(3) == {"a key of thirty-two bytes, or more"}
    assert runs() == 3


@pytest.mark.usefixtures("ours")
def test_one_that_failed_is_run_again(runs, tmp_path, monkeypatch):
    command, away = tmp_path / "key", tmp_path / "away"
    command.rename(away)
    with pytest.raises(FileNotFoundError):
        conf.get("api_auth", "jwt_secret")
    away.rename(command)
    assert conf.get("api_auth", "jwt_secret")
    assert runs() == 1
