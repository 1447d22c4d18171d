"""A certificate authority for tests."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

NO_USAGE = dict.fromkeys(
    ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign",
     "encipher_only", "decipher_only"), False
)  # fmt: skip
SIGNS_CERTIFICATES = x509.KeyUsage(key_cert_sign=True, **NO_USAGE)


class Authority:
    """An authority, and the certificates that it signs."""

    def __init__(self, name: str) -> None:
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.key = ec.generate_private_key(ec.SECP256R1())

    @cached_property
    def pem(self) -> str:
        """The authority's own certificate."""
        authority = x509.BasicConstraints(ca=True, path_length=None)
        return self._signed(self.name, self.key.public_key(), 1, authority)

    def issue(self, subject: str, *, days: int = 1) -> str:
        """Return a certificate and after it its key.

        Args:
            subject: The host name or IP address, or the name of a client.
            days: Days for which it is valid; negative: it expired so long ago.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
        named: x509.GeneralName = x509.DNSName(subject)
        with suppress(ValueError):
            named = x509.IPAddress(ipaddress.ip_address(subject))
        host = x509.SubjectAlternativeName([named])
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return self._signed(name, key.public_key(), days, host) + private

    def _signed(
        self, name: x509.Name, public: ec.EllipticCurvePublicKey, days: int, extension: x509.ExtensionType
    ) -> str:
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(
            issuer_name=self.name,
            subject_name=name,
            public_key=public,
            serial_number=x509.random_serial_number(),
            not_valid_before=now - timedelta(days=10),
            not_valid_after=now + timedelta(days=days),
        ).add_extension(extension, critical=True)
        # Python 3.13 verifies as strictly as RFC 5280: https://docs.python.org/3/whatsnew/3.13.html#ssl
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = builder.add_extension(issuer, critical=False)
        own = x509.SubjectKeyIdentifier.from_public_key(public)
        builder = builder.add_extension(own, critical=False)
        if isinstance(extension, x509.BasicConstraints):
            builder = builder.add_extension(SIGNS_CERTIFICATES, critical=True)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
