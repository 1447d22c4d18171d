"""How this machine reaches package mirrors, in the form that an image build can take.

Addresses and certificates are handed to a build as BuildKit secrets: an index address can hold a password,
and neither may stay behind in an image's layers or history.
https://docs.docker.com/build/building/secrets/
"""

from __future__ import annotations

import configparser
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Where the distributions keep the bundle; OpenSSL's variable comes first.
CA_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/cert.pem",  # macOS
)
# BuildKit keeps these build arguments out of the image's history and of the cache's keys.
# https://docs.docker.com/reference/dockerfile/#predefined-args
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")
# Where the go command gets modules from, and whom it asks about their checksums. https://go.dev/ref/mod#environment-variables
GO_VARIABLES = ("GOPROXY", "GOSUMDB", "GONOSUMDB", "GONOPROXY", "GOPRIVATE", "GOINSECURE")
# `Acquire::http::Proxy "http://…";` and the same for one host, unless it is empty.
_PROXY_SETTING = re.compile(r'^Acquire::\S*::Proxy\S* ".+";$', re.IGNORECASE)


def proxy_arguments(environ: Mapping[str, str]) -> dict[str, str]:
    """The machine's proxy variables, whichever case they are written in."""
    names = [spelling for name in PROXY_VARIABLES for spelling in (name, name.lower())]
    return {name: environ[name] for name in names if environ.get(name)}


def ca_bundle(environ: Mapping[str, str], candidates: Iterable[str] = CA_BUNDLES) -> Path | None:
    """The machine's certificates, with those of a proxy that inspects TLS; None where there is no file."""
    named = environ.get("SSL_CERT_FILE")
    for candidate in [named, *candidates] if named else candidates:
        path = Path(candidate)
        if path.is_file():
            return path
    return None


def package_index(environ: Mapping[str, str], home: Path, etc: Path = Path("/etc")) -> dict[str, str]:
    """The machine's Python package index as variables for pip and for uv; empty means the default index.

    Variables win over uv's files, those over pip's, and a user's file over the system's, as in the tools.
    """
    uv = _uv_settings([home / ".config/uv/uv.toml", etc / "uv/uv.toml"])
    pip = _pip_settings([etc / "pip.conf", home / ".pip/pip.conf", home / ".config/pip/pip.conf"])
    index = (
        environ.get("UV_DEFAULT_INDEX")
        or environ.get("UV_INDEX_URL")
        or environ.get("PIP_INDEX_URL")
        or uv.get("default")
        or pip.get("index-url")
    )
    extra = (
        environ.get("UV_INDEX")
        or environ.get("UV_EXTRA_INDEX_URL")
        or environ.get("PIP_EXTRA_INDEX_URL")
        or uv.get("extra")
        or pip.get("extra-index-url")
    )
    trusted = environ.get("UV_INSECURE_HOST") or environ.get("PIP_TRUSTED_HOST") or pip.get("trusted-host")
    found = {
        "UV_DEFAULT_INDEX": index,
        "PIP_INDEX_URL": index,
        "UV_INDEX": extra,
        "PIP_EXTRA_INDEX_URL": extra,
        "UV_INSECURE_HOST": trusted,
        "PIP_TRUSTED_HOST": trusted,
    }
    return {name: " ".join(value.split()) for name, value in found.items() if value}


def _pip_settings(paths: Iterable[Path]) -> dict[str, str]:
    # Later files win: https://pip.pypa.io/en/stable/topics/configuration/
    parser = configparser.RawConfigParser()
    parser.read(paths, encoding="utf-8")
    return dict(parser["global"]) if parser.has_section("global") else {}


def _uv_settings(paths: Iterable[Path]) -> dict[str, str]:
    for path in paths:
        if not path.is_file():
            continue
        settings: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        indexes = settings.get("index", [])
        default = next((index["url"] for index in indexes if index.get("default")), settings.get("index-url", ""))
        extra = " ".join(index["url"] for index in indexes if not index.get("default"))
        return {"default": default, "extra": extra}
    return {}


def go_modules(environ: Mapping[str, str], home: Path) -> dict[str, str]:
    """The machine's settings for Go modules, as variables for the go command; empty means its defaults.

    Variables win over the file that `go env -w` writes.
    """
    file = Path(environ.get("GOENV") or home / ".config/go/env")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    written = dict(line.split("=", 1) for line in lines if "=" in line)
    found = {name: environ.get(name) or written.get(name, "") for name in GO_VARIABLES}
    return {name: value.strip() for name, value in found.items() if value.strip()}


def shell_assignments(variables: Mapping[str, str]) -> str:
    """The variables as a file that a shell can read with `.`."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())


def apt_configuration(dump: str, has_ca: bool) -> str:
    """What apt in a build needs to know: the machine's proxies, and where the build finds its certificates.

    Args:
        dump: What `apt-config dump` prints; empty where the machine has no apt.
        has_ca: Whether the build gets the secret `ca`.
    """
    lines = [
        line
        for line in dump.splitlines()
        if line.startswith("Acquire::") and "::proxy" in line.split(" ", 1)[0].lower() and not line.endswith('"";')
    ]
    if has_ca:
        lines.append('Acquire::https::CaInfo "/run/secrets/ca";')
    return "".join(f"{line}\n" for line in lines)


def write_build_secrets(folder: Path, environ: Mapping[str, str], home: Path) -> dict[str, Path]:
    """Writes what a build needs of this machine's settings into `folder`; returns the file of each secret.

    Args:
        folder: An empty folder that only this user can read.
        environ: This process's environment.
        home: The user's home folder.
    """
    ca = ca_bundle(environ)
    contents = {
        "apt": apt_configuration(_apt_config_dump(), has_ca=ca is not None),
        "package_index": shell_assignments(package_index(environ, home)),
        "modules": shell_assignments(go_modules(environ, home)),
    }
    secrets = {} if ca is None else {"ca": ca}
    for name, content in contents.items():
        path = folder / name
        # BuildKit leaves an empty secret out, as if it had not been given.
        path.write_text(content or "\n", encoding="utf-8")
        path.chmod(0o600)
        secrets[name] = path
    return secrets


def _apt_config_dump() -> str:
    try:
        answer = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return ""
    return answer.stdout
