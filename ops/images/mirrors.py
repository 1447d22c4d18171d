"""The machine's settings for package mirrors, in a form for image builds.

A build gets addresses and certificates as BuildKit secrets: an index address can hold a password, and no secret may
stay in an image's layers or history.
https://docs.docker.com/build/building/secrets/
"""

from __future__ import annotations

import configparser
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# The paths at which distributions keep the bundle; OpenSSL's variable wins over them.
CA_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/cert.pem",  # macOS
)
# BuildKit keeps these build arguments out of the image's history and of the cache's keys.
# https://docs.docker.com/reference/dockerfile/#predefined-args
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")
# The go command's module proxies and checksum databases. https://go.dev/ref/mod#environment-variables
GO_VARIABLES = ("GOPROXY", "GOSUMDB", "GONOSUMDB", "GONOPROXY", "GOPRIVATE", "GOINSECURE")


def proxy_arguments(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the machine's proxy variables, in upper or lower case as they are set."""
    names = [spelling for name in PROXY_VARIABLES for spelling in (name, name.lower())]
    return {name: environ[name] for name in names if environ.get(name)}


def ca_bundle(environ: Mapping[str, str], candidates: Iterable[str] = CA_BUNDLES) -> Path | None:
    """Return the machine's certificates, with those of a proxy that inspects TLS; None where there is no file."""
    named = environ.get("SSL_CERT_FILE")
    for candidate in [named, *candidates] if named else candidates:
        path = Path(candidate)
        if path.is_file():
            return path
    return None


def package_index(environ: Mapping[str, str], home: Path, etc: Path = Path("/etc")) -> dict[str, str]:
    """Return the machine's Python package index as variables for pip and for uv; empty: the default index.

    A variable wins over uv's file, uv's file over pip's, and a user's file over the system's, as in the tools.
    """
    uv = uv_settings([home / ".config/uv/uv.toml", etc / "uv/uv.toml"])
    pip = pip_settings([etc / "pip.conf", home / ".pip/pip.conf", home / ".config/pip/pip.conf"])
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
    settings = {
        "UV_DEFAULT_INDEX": index,
        "PIP_INDEX_URL": index,
        "UV_INDEX": extra,
        "PIP_EXTRA_INDEX_URL": extra,
        "UV_INSECURE_HOST": trusted,
        "PIP_TRUSTED_HOST": trusted,
    }
    return {name: " ".join(value.split()) for name, value in settings.items() if value}


def pip_settings(paths: Iterable[Path]) -> dict[str, str]:
    """Return pip's global settings; later files win: https://pip.pypa.io/en/stable/topics/configuration/."""
    parser = configparser.RawConfigParser()
    parser.read(paths, encoding="utf-8")
    return dict(parser["global"]) if parser.has_section("global") else {}


def uv_settings(paths: Iterable[Path]) -> dict[str, str]:
    """Return the addresses of uv's `default` index and its `extra` ones, from the first file that exists."""
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
    """Return the machine's settings for Go modules as variables for the go command; empty: its defaults.

    Variables win over the file that `go env -w` writes.
    """
    file = Path(environ.get("GOENV") or home / ".config/go/env")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    written = dict(line.split("=", 1) for line in lines if "=" in line)
    settings = {name: environ.get(name) or written.get(name, "") for name in GO_VARIABLES}
    return {name: value.strip() for name, value in settings.items() if value.strip()}


def shell_assignments(variables: Mapping[str, str]) -> str:
    """Return the variables as a file that a shell can read with `.`."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())


def apt_configuration(dump: str, has_ca: bool) -> str:
    """Return apt's settings for a build: the machine's proxies, and the path of its certificates in the build.

    Args:
        dump: The output of `apt-config dump`; empty where the machine has no apt.
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
    """Write this machine's settings for a build into `folder`; return the file of each secret.

    Args:
        folder: An empty folder that only this user can read.
        environ: This process's environment.
        home: The user's home folder.
    """
    ca = ca_bundle(environ)
    contents = {
        "apt": apt_configuration(apt_config_dump(), has_ca=ca is not None),
        "package_index": shell_assignments(package_index(environ, home)),
        "modules": shell_assignments(go_modules(environ, home)),
    }
    secrets = {} if ca is None else {"ca": ca}
    for name, content in contents.items():
        path = folder / name
        # BuildKit ignores a secret whose file is empty.
        path.write_text(content or "\n", encoding="utf-8")
        path.chmod(0o600)
        secrets[name] = path
    return secrets


def apt_config_dump() -> str:
    """Return the output of `apt-config dump`; empty where the machine has no apt."""
    try:
        done = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return ""
    return done.stdout
