"""An S3 server over TLS with a private authority: moto, on the host's address of Docker's default bridge."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from ops import compose

BUCKET = "backups"
REGION = "eu-central-1"


@dataclass(frozen=True)
class S3Server:
    """A running server that checks log-ins.

    Attributes:
        endpoint: HOST:PORT.
        authority: The certificate of its authority, in PEM.
        key: The log-in of a user who may do everything in S3.
        key_secret: The secret of the log-in.
        process: The server.
        log: Its log, a line for each request.
    """

    endpoint: str
    authority: str
    key: str
    key_secret: str
    process: subprocess.Popen[bytes]
    log: Path

    def settings(self) -> dict[str, str]:
        """Return the settings of the storage."""
        return {
            "BACKUP_S3_ENDPOINT": self.endpoint,
            "BACKUP_S3_BUCKET": BUCKET,
            "BACKUP_S3_REGION": REGION,
            "BACKUP_S3_URI_STYLE": "path",
        }

    def secrets(self) -> dict[str, str]:
        """Return the text of the operator's files."""
        return {
            "backup_s3_key": self.key,
            "backup_s3_key_secret": self.key_secret,
            "backup_s3_ca.pem": self.authority,
        }

    def requests(self) -> int:
        """Return how many requests it has answered."""
        return self.log.read_text(encoding="utf-8").count('HTTP/1.1" ')

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the server without closing its connections, as a partition does."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


def serve(host: str, port: str, folder: str) -> None:
    """Serve until the process is killed, as moto.server does."""
    application = DomainDispatcherApplication(create_backend_app)
    tls = (f"{folder}/server.pem", f"{folder}/server.key")
    server = make_server(host, int(port), application, True, ssl_context=tls)
    close = server.shutdown_request

    def end_tls(request: ssl.SSLSocket) -> None:
        """End TLS with notice: pgBackRest refuses an answer without."""
        with contextlib.suppress(OSError):
            request.settimeout(1)
            request.unwrap()
        close(request)

    server.shutdown_request = end_tls
    server.serve_forever()


def named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(
    subject: str, public: ec.EllipticCurvePublicKey, signer: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType
) -> bytes:
    """Return a certificate in PEM that the authority has signed."""
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        subject_name=named(subject),
        issuer_name=named("authority"),
        public_key=public,
        serial_number=x509.random_serial_number(),
        not_valid_before=now - timedelta(days=1),
        not_valid_after=now + timedelta(days=1),
    )
    signed = builder.add_extension(extension, critical=False).sign(signer, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


def new_authority() -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    """Return the key of an authority, and its certificate in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    constraints = x509.BasicConstraints(ca=True, path_length=None)
    return key, certificate("authority", key.public_key(), key, constraints)


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Run a server with an empty bucket."""
    (network,) = json.loads(compose.docker("network", "inspect", "bridge"))
    host = network["IPAM"]["Config"][0].get("Gateway", "172.17.0.1")
    with socket.socket() as listener:
        listener.bind((host, 0))
        port = listener.getsockname()[1]
    authority_key, authority = new_authority()
    own_key = ec.generate_private_key(ec.SECP256R1())
    name = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))])
    files = {
        "authority.pem": authority,
        "server.pem": certificate("server", own_key.public_key(), authority_key, name),
        "server.key": own_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    }
    for each, content in files.items():
        (folder / each).write_bytes(content)
    command = [sys.executable, "-m", __name__, host, str(port), str(folder)]
    with (folder / "server.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            key, key_secret = prepare(f"https://{host}:{port}", str(folder / "authority.pem"))
            yield S3Server(f"{host}:{port}", authority.decode(), key, key_secret, process, folder / "server.log")
        finally:
            process.kill()


def prepare(url: str, authority: str) -> tuple[str, str]:
    """Wait for the server, create the bucket and a user, and let the server check log-ins from then on."""
    deadline = time.monotonic() + 60
    trusted = ssl.create_default_context(cafile=authority)
    while True:
        try:
            httpx.get(f"{url}/moto-api/", verify=trusted)
            break
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    # boto3 reads a configuration of the user's otherwise.
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    options = {"endpoint_url": url, "verify": authority, "region_name": REGION}
    log_in = {"aws_access_key_id": "any", "aws_secret_access_key": "any"}
    boto3.client("s3", **options, **log_in).create_bucket(
        Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    users = boto3.client("iam", **options, **log_in)
    users.create_user(UserName="backup")
    allowed = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    users.put_user_policy(UserName="backup", PolicyName="s3", PolicyDocument=json.dumps(allowed))
    created = users.create_access_key(UserName="backup")["AccessKey"]
    httpx.post(f"{url}/moto-api/reset-auth", content="0", verify=trusted).raise_for_status()
    return created["AccessKeyId"], created["SecretAccessKey"]


if __name__ == "__main__":
    serve(*sys.argv[1:4])
