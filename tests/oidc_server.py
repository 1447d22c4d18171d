"""A certified OpenID Connect provider over TLS with a private authority, on the host's address of Docker's bridge."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from ops import compose
from tests.certificates import Authority

SOURCE = Path(__file__).parent / "integration/oidc_provider"
CLIENT = "airflow"
CLIENT_SECRET = "the secret of the tests' client"


@dataclass
class OidcServer:
    """A provider that may run.

    Attributes:
        host: Its address, for containers and for a browser on this host.
        port: Its port.
        folder: For its packages, its configuration and its log.
        authority: Of its certificate.
        callback: Where it may send users back to; set before it starts.
        accounts: The groups of each user who exists.
    """

    host: str
    port: int
    folder: Path
    authority: Authority
    callback: str = ""
    accounts: dict[str, list[str]] = field(default_factory=dict)

    @property
    def issuer(self) -> str:
        return f"https://{self.host}:{self.port}"

    def settings(self, roles: str) -> dict[str, str]:
        """Return the settings of a stack whose users log in here."""
        return {"OIDC_ISSUER": self.issuer, "OIDC_CLIENT_ID": CLIENT, "OIDC_ROLES": roles}

    def secrets(self) -> dict[str, str]:
        """Return the text of the operator's files."""
        return {"oidc_client_secret": CLIENT_SECRET, "oidc_ca.pem": self.authority.pem}

    def set_accounts(self, accounts: Mapping[str, list[str]]) -> None:
        """Replace the users who exist, and their groups."""
        self.accounts = dict(accounts)
        self._write()

    def _write(self) -> None:
        chosen = {
            "issuer": self.issuer,
            "host": self.host,
            "port": self.port,
            "certificate": (self.folder / "certificate.pem").read_text(),
            "client": {"client_id": CLIENT, "client_secret": CLIENT_SECRET, "redirect_uris": [self.callback]},
            "accounts": self.accounts,
        }
        # Read at any moment: never half of it.
        part = self.folder / "provider.json.part"
        part.write_text(json.dumps(chosen))
        part.rename(self.folder / "provider.json")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the provider for the duration of the block."""
        self._write()
        command = ["node", "provider.mjs", "provider.json"]
        with (self.folder / "provider.log").open("ab") as log:
            process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        try:
            self._wait(process)
            yield
        finally:
            process.kill()
            process.wait()

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        trusted = ssl.create_default_context(cadata=self.authority.pem)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(httpx.TransportError):
                httpx.get(f"{self.issuer}/.well-known/openid-configuration", verify=trusted).raise_for_status()
                return
            time.sleep(0.2)
        raise AssertionError((self.folder / "provider.log").read_text())


def oidc_server(folder: Path) -> OidcServer:
    """Return a provider that does not run yet, with its packages as package-lock.json has them.

    Args:
        folder: An empty one.
    """
    assert shutil.which("npm"), "cannot run the provider: npm is missing\nhint: install Node.js 20 or later with npm"
    for file in SOURCE.iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (network,) = json.loads(compose.docker("network", "inspect", "bridge"))
    host = network["IPAM"]["Config"][0].get("Gateway", "172.17.0.1")
    with socket.socket() as listener:
        listener.bind((host, 0))
        port = listener.getsockname()[1]
    server = OidcServer(host, port, folder, Authority("authority of the provider"))
    (folder / "certificate.pem").write_text(server.authority.issue(host))
    return server
