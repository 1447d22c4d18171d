"""The stack's authority and the certificates that it signs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from ops import private_authority
from ops.errors import StackError
from ops.private_authority import DAYS, RENEWED_DAYS, Certificate

SERVER = Certificate("postgres", ("postgres", "localhost", "127.0.0.1"))
CLIENT = Certificate("airflow")
BOTH = (SERVER, CLIENT)
NOW = datetime.now(UTC).replace(microsecond=0)


def loaded(project, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(private_authority.read(project, name).encode())


def test_a_server_has_its_names_and_a_client_none(project):
    assert private_authority.renew(project, BOTH, NOW) == ["postgres", "airflow"]
    authority, server, client = (loaded(project, name) for name in ("authority", "postgres", "airflow"))
    server.verify_directly_issued_by(authority)
    client.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["postgres", "localhost"]
    assert list(map(str, names.get_values_for_type(x509.IPAddress))) == ["127.0.0.1"]
    usages = client.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH], "a client cannot pose as a server"
    for path in private_authority.folder(project).iterdir():
        assert path.stat().st_mode & 0o777 == 0o600, path


def test_only_certificates_near_their_expiry_are_renewed(project):
    private_authority.renew(project, BOTH, NOW)
    before = private_authority.read(project, "postgres")
    almost = NOW + timedelta(days=DAYS - RENEWED_DAYS)
    assert private_authority.renew(project, BOTH, almost) == []
    assert private_authority.read(project, "postgres") == before
    assert private_authority.renew(project, BOTH, almost + timedelta(minutes=1)) == ["postgres", "airflow"]
    assert private_authority.read(project, "postgres") != before
    assert private_authority.expiries(project)["postgres"] > NOW + timedelta(days=DAYS)


def test_other_names_or_a_damaged_file_need_a_new_certificate(project):
    private_authority.renew(project, BOTH, NOW)
    renamed = Certificate("postgres", ("postgres", "other"))
    assert private_authority.renew(project, (renamed, CLIENT), NOW) == ["postgres"]
    (private_authority.folder(project) / "airflow.pem").write_text("damaged")
    assert "airflow" not in private_authority.expiries(project)
    assert private_authority.renew(project, (renamed, CLIENT), NOW) == ["airflow"]


def test_a_new_authority_signs_all_certificates_again(project):
    private_authority.renew(project, BOTH, NOW)
    for kind in ("pem", "key"):
        (private_authority.folder(project) / f"authority.{kind}").unlink()
    assert private_authority.renew(project, BOTH, NOW) == ["postgres", "airflow"]


@pytest.mark.parametrize("damage", ["no key", "another key", "no certificate", "expired"])
def test_an_authority_that_cannot_sign_is_refused(project, damage):
    private_authority.renew(project, BOTH, NOW)
    folder = private_authority.folder(project)
    if damage == "no key":
        (folder / "authority.key").unlink()
    elif damage == "another key":
        _, _, key = private_authority.read(project, "airflow").partition("-----BEGIN PRIVATE")
        (folder / "authority.key").write_text(f"-----BEGIN PRIVATE{key}")
    elif damage == "no certificate":
        (folder / "authority.pem").write_text("")
    years = private_authority.AUTHORITY_DAYS if damage == "expired" else 0
    with pytest.raises(StackError) as refused:
        private_authority.renew(project, BOTH, NOW + timedelta(days=years))
    assert refused.value.where.endswith("tls")


def test_a_missing_certificate_is_named(project):
    with pytest.raises(StackError, match="postgres"):
        private_authority.read(project, "postgres")
