"""The texts of a secret file that are masked, and their forms."""

from __future__ import annotations

import json
from urllib.parse import quote, quote_plus

import pytest

from airflow_ha import secret_masking

PASSWORD = 'p@ss/w+rd "quoted" \\ä'


@pytest.mark.parametrize(
    "written",
    [
        quote(PASSWORD),
        quote(PASSWORD, safe=""),
        quote(PASSWORD, safe="").replace("%2F", "%2f").replace("%40", "%40"),
        quote_plus(PASSWORD),
        json.dumps(PASSWORD)[1:-1],
        json.dumps(PASSWORD, ensure_ascii=False)[1:-1],
        repr(PASSWORD)[1:-1],
    ],
)
def test_secret_is_masked_in_all_written_forms(written):
    forms = secret_masking.forms(PASSWORD)
    assert any(form.lower() == written.lower() for form in forms)


def test_plain_word_has_no_other_form():
    assert secret_masking.forms("Aa0123456789-_") == []


def test_multi_line_key_is_masked_line_by_line():
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQ\nshort\n-----END KEY-----"
    assert "MIIEvQIBADANBgkqhkiG9w0BAQ" in secret_masking.forms(key)
    assert "short" not in secret_masking.forms(key)


def test_certificates_alone_are_public():
    certificate = "-----BEGIN CERTIFICATE-----\nMIIEvQIBADANBgkqhkiG9w0BAQ\n-----END CERTIFICATE-----\n"
    key = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIDEh\n-----END PRIVATE KEY-----"
    assert list(secret_masking.secrets_in(certificate * 2)) == []
    assert list(secret_masking.secrets_in(certificate + key)) == [certificate + key]


@pytest.mark.parametrize(
    ("content", "secrets"),
    [
        ("redis://:s%2Fcret@redis:6379/0", {"s%2Fcret", "s/cret"}),
        ("sentinel://u:one@a:26379;sentinel://u:two@b:26379", {"one", "two"}),
        ("postgresql://u@/db?host=a:5432&host=b:5432&password=hidden", {"hidden"}),
        ("db+postgresql://u:pw1@/db?host=a:5432&host=b:5432", {"pw1"}),
        ('{"password": "inner", "username": "name"}', {"inner"}),
        ('{"tokens": {"a": ["t1", "t2"]}, "master": "m"}', {"t1", "t2"}),
        ("admin:basic", {"basic"}),
        ("just-a-key\n", set()),
        ("{}", set()),
    ],
)
def test_passwords_in_a_file_are_found(content, secrets):
    assert set(secret_masking.secrets_in(content)) == {content.strip()} | secrets


def test_unreadable_files_or_missing_folder_are_no_error(tmp_path):
    assert secret_masking.mounted_secrets(tmp_path / "none") == []
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "key").write_text("secret-key\n")
    assert secret_masking.mounted_secrets(tmp_path) == ["secret-key"]
