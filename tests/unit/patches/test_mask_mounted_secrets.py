"""The contents of secret files are masked in logs, also after the masker is reset."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from airflow_ha import secret_masking
from tests.unit.patches.loading import applied

URL = "redis://:s3cret%2Fword@redis:6379/0"


@pytest.fixture
def maskers(tmp_path, monkeypatch):
    """Both of Airflow's maskers, patched, with two mounted secret files."""
    from airflow._shared.secrets_masker import secrets_masker as core
    from airflow.sdk._shared.secrets_masker import secrets_masker as sdk

    (tmp_path / "celery_broker_url").write_text(URL)
    (tmp_path / "celery_sentinel_kwargs").write_text(json.dumps({"password": "of-the-sentinels"}))
    mounted = secret_masking.mounted_secrets
    monkeypatch.setattr(secret_masking, "mounted_secrets", lambda: mounted(tmp_path))
    maskers_by_class = {module.SecretsMasker: module._secrets_masker() for module in (core, sdk)}
    before = [(masker, masker.patterns, masker.replacer) for masker in maskers_by_class.values()]
    for masker in maskers_by_class.values():
        masker.patterns = set(masker.patterns)
    with applied("mask_mounted_secrets"):
        yield list(maskers_by_class.values())
    for masker, patterns, replacer in before:
        masker.patterns, masker.replacer = patterns, replacer


def test_files_are_masked_before_and_after_a_reset(maskers):
    for masker in maskers:
        for _ in range(2):
            for text in (URL, "s3cret%2Fword", "s3cret/word", "of-the-sentinels", quote(URL, safe="")):
                assert masker.redact(f"it is {text}.") == "it is ***."
            assert masker.redact("redis:6379 and a word") == "redis:6379 and a word"
            masker.reset_masker()


def test_reset_drops_the_secrets_of_one_task(maskers):
    for masker in maskers:
        masker.add_mask("of-one-task")
        assert masker.redact("of-one-task") == "***"
        masker.reset_masker()
        assert masker.redact("of-one-task") == "of-one-task"


def test_subclass_masks_the_files_too(maskers):
    """OpenLineage has a subclass."""
    masker = type("Redactor", (type(maskers[0]),), {})()
    masker.reset_masker()
    assert masker.redact(URL) == "***"


def test_upstream_drops_its_secrets_at_a_reset():
    """If this fails, upstream is fixed: delete airflow_ha.patches.mask_mounted_secrets and this file."""
    from airflow.sdk._shared.secrets_masker import SecretsMasker

    masker = SecretsMasker()
    masker.add_mask(URL)
    masker.reset_masker()
    assert masker.redact(URL) == URL
