"""The test cluster's certificates and the kubeconfig of each client, valid for a month."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from ops.kubernetes.cluster.networks import API_SERVER, CONTROL_ADDRESS, FIRST_SERVICE, run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ops.kubernetes.cluster.networks import Node

DAYS: Final = "30"
KEY: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc")
CA_USAGE: Final = "keyUsage=critical,keyCertSign,cRLSign"
EXTENSIONS: Final = (
    "keyUsage=digitalSignature,keyEncipherment",
    "extendedKeyUsage=serverAuth,clientAuth",
    "subjectKeyIdentifier=hash",
    "authorityKeyIdentifier=keyid",
)
"""Python 3.13 refuses an authority without its usage, and certificates without identifiers (VERIFY_X509_STRICT)."""
ADMIN, COREDNS, CONTROLLER, SCHEDULER, PROXY = "admin", "coredns", "controller-manager", "scheduler", "proxy"
CLIENTS: Final = {
    ADMIN: "/O=system:masters/CN=admin",
    COREDNS: "/O=system:masters/CN=coredns",
    CONTROLLER: "/CN=system:kube-controller-manager",
    SCHEDULER: "/CN=system:kube-scheduler",
    PROXY: "/CN=system:kube-proxy",
}
"""The subject of each client besides the nodes."""


def create(folder: Path, nodes: Sequence[Node]) -> None:
    """Create every certificate and kubeconfig in a folder."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    ca = ("-out", str(folder / "ca.crt"), "-keyout", str(folder / "ca.key"))
    run("openssl", "req", "-x509", *KEY, "-subj", "/CN=test-cluster", "-days", DAYS, "-addext", CA_USAGE, *ca)
    names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
    addresses = (CONTROL_ADDRESS, FIRST_SERVICE, "127.0.0.1")
    sign(
        folder,
        "apiserver",
        "/CN=kube-apiserver",
        [*(f"DNS:{name}" for name in names), *(f"IP:{ip}" for ip in addresses)],
    )
    sign(folder, "kubelet-client", "/O=system:masters/CN=apiserver-kubelet-client")
    for client, subject in CLIENTS.items():
        sign(folder, client, subject)
        write_config(folder, client)
    for node in nodes:
        sign(
            folder, node.name, f"/O=system:nodes/CN=system:node:{node.name}", [f"DNS:{node.name}", f"IP:{node.address}"]
        )
        write_config(folder, node.name)
    run("openssl", "genrsa", "-out", str(folder / "accounts.key"), "2048")
    run("openssl", "rsa", "-in", str(folder / "accounts.key"), "-pubout", "-out", str(folder / "accounts.pub"))


def sign(folder: Path, name: str, subject: str, names: Sequence[str] = ()) -> None:
    """Create a key, and a certificate for servers and clients.

    Args:
        folder: The folder of the certificates.
        name: The name of its files.
        subject: Its subject.
        names: Its alternative names.
    """
    request, extensions = folder / f"{name}.csr", folder / f"{name}.ext"
    run("openssl", "req", "-new", *KEY, "-subj", subject, "-keyout", str(folder / f"{name}.key"), "-out", str(request))
    lines = [*EXTENSIONS, *([f"subjectAltName={','.join(names)}"] if names else [])]
    extensions.write_text("\n".join(lines) + "\n")
    authority = ("-CA", str(folder / "ca.crt"), "-CAkey", str(folder / "ca.key"), "-CAcreateserial")
    files = ("-in", str(request), "-out", str(folder / f"{name}.crt"), "-extfile", str(extensions))
    run("openssl", "x509", "-req", *files, *authority, "-days", DAYS)


def config(folder: Path, client: str) -> Path:
    """Return the kubeconfig of a client."""
    return folder / f"{client}.conf"


def write_config(folder: Path, client: str) -> None:
    """Write the kubeconfig of a client."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "test", "cluster": {"server": API_SERVER, "certificate-authority": str(folder / "ca.crt")}}
        ],
        "users": [
            {
                "name": client,
                "user": {
                    "client-certificate": str(folder / f"{client}.crt"),
                    "client-key": str(folder / f"{client}.key"),
                },
            }
        ],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": client}}],
        "current-context": "test",
    }
    path = config(folder, client)
    path.touch(mode=0o600)
    path.write_text(json.dumps(content), encoding="utf-8")
