"""The stack's private authority, and the certificates that it signs.

They are in secrets/tls/, readable by the operator only: authority.pem and authority.key, and for each certificate
NAME.pem, the certificate and after it its key. Containers have copies (secrets_store.py), never the authority's key.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ops.atomic_file import write_atomically
from ops.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ops.project import Project

FOLDER: Final = "tls"
AUTHORITY: Final = "authority"
AUTHORITY_DAYS: Final = 3650
DAYS: Final = 90
"""The validity of a certificate."""
RENEWED_DAYS: Final = 60
"""The remaining days below which `up` renews a certificate: one `up` in 60 days keeps every certificate valid."""
CLOCK_SKEW: Final = timedelta(hours=1)
"""How far the clock of a client may be behind."""
OWNER_ONLY: Final = 0o600


@dataclass(frozen=True)
class Certificate:
    """A certificate that the authority signs.

    Attributes:
        name: The name of its file, and the unit of its subject.
        hosts: The host names and addresses of a server; none for a client.
    """

    name: str
    hosts: tuple[str, ...] = ()

    @property
    def usages(self) -> list[x509.ObjectIdentifier]:
        """What it is for. A client's certificate is none for a server; a server, such as a replica, also connects."""
        own = [ExtendedKeyUsageOID.CLIENT_AUTH]
        return [ExtendedKeyUsageOID.SERVER_AUTH, *own] if self.hosts else own


def folder(project: Project) -> Path:
    """Return the folder of the authority and its certificates."""
    return project.secrets / FOLDER


def read(project: Project, name: str) -> str:
    """Return the text of a certificate's file, or of the authority's certificate.

    Raises:
        StackError: The file is missing.
    """
    path = folder(project) / f"{name}.pem"
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StackError(
            f"cannot use TLS: the certificate of {name} is missing",
            where=project.shown(path),
            hint="run ./ops/stack up, which signs it",
        ) from None


def renew(project: Project, certificates: Iterable[Certificate], now: datetime | None = None) -> list[str]:
    """Sign the certificates that are missing, of another authority or near their expiry, and return their names.

    Args:
        project: The stack.
        certificates: Those that it needs.
        now: The time, instead of the clock's.
    """
    now = now or datetime.now(UTC)
    folder(project).mkdir(mode=0o700, parents=True, exist_ok=True)
    authority, key = signer(project, now)
    signed = []
    for certificate in certificates:
        path = folder(project) / f"{certificate.name}.pem"
        if not (path.exists() and is_current(path.read_bytes(), certificate, authority, now)):
            write_atomically(path, sign(certificate, authority, key, now), OWNER_ONLY)
            signed.append(certificate.name)
    return signed


def signer(project: Project, now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Return the authority's certificate and key, created if there is none.

    Raises:
        StackError: Its files are not valid, or it has expired.
    """
    path, key_path = (folder(project) / f"{AUTHORITY}.{kind}" for kind in ("pem", "key"))
    if not path.exists() and not key_path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        write_atomically(key_path, private(key), OWNER_ONLY)
        write_atomically(path, pem(self_signed(key, now)), OWNER_ONLY)
    try:
        authority = x509.load_pem_x509_certificate(path.read_bytes())
        loaded = load_pem_private_key(key_path.read_bytes(), None)
        is_valid = authority.public_key() == loaded.public_key() and now < authority.not_valid_after_utc
    except (OSError, ValueError, TypeError):
        is_valid = False
    if not is_valid or not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise StackError(
            "cannot sign certificates: the files of the stack's authority are damaged, or it has expired",
            where=project.shown(folder(project)),
            hint="run ./ops/stack down, delete the folder, then run ./ops/stack up",
        )
    return authority, loaded


def is_current(text: bytes, certificate: Certificate, authority: x509.Certificate, now: datetime) -> bool:
    """Return whether a file has this certificate of this authority, valid for another RENEWED_DAYS."""
    try:
        present = x509.load_pem_x509_certificate(text)
        present.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    if present.not_valid_after_utc - now < timedelta(days=RENEWED_DAYS):
        return False
    try:
        extension = present.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return not certificate.hosts
    return list(extension.value) == general_names(certificate)


def general_names(certificate: Certificate) -> list[x509.GeneralName]:
    """Return a server's names as a certificate has them."""

    def name(host: str) -> x509.GeneralName:
        try:
            return x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            return x509.DNSName(host)

    return [name(host) for host in certificate.hosts]


def self_signed(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    """Return the certificate of a new authority."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "airflow-ha")])
    return (
        unsigned(subject, subject, key.public_key(), now, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def sign(
    certificate: Certificate, authority: x509.Certificate, signing_key: ec.EllipticCurvePrivateKey, now: datetime
) -> str:
    """Return a new certificate and after it its new key."""
    key = ec.generate_private_key(ec.SECP256R1())
    # No common name: etcd refuses a client with one on its HTTP gateway (server/embed/serve.go), which Patroni uses.
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, certificate.name)])
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        unsigned(subject, authority.subject, key.public_key(), now, DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(certificate.usages), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    if certificate.hosts:
        names = x509.SubjectAlternativeName(general_names(certificate))
        builder = builder.add_extension(names, critical=False)
    return pem(builder.sign(signing_key, hashes.SHA256())) + private(key)


def unsigned(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    """Return a certificate that is valid from CLOCK_SKEW before now, without extensions."""
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=public,
        serial_number=x509.random_serial_number(),
        not_valid_before=now - CLOCK_SKEW,
        not_valid_after=now + timedelta(days=days),
    )


def key_usage(*, signs: bool) -> x509.KeyUsage:
    """Return the usage of an authority's key, which signs certificates, or of another one."""
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def pem(certificate: x509.Certificate) -> str:
    """Return a certificate as text."""
    return certificate.public_bytes(Encoding.PEM).decode()


def private(key: ec.EllipticCurvePrivateKey) -> str:
    """Return a private key as text."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def expiries(project: Project) -> dict[str, datetime]:
    """Return when the authority and each certificate expires, by name; empty if there are none."""
    found = {}
    for path in sorted(folder(project).glob("*.pem")):
        try:
            found[path.stem] = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
        except ValueError:  # `up` signs it again
            continue
    return found
