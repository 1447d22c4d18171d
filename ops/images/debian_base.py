"""The Debian that the stand-ins are built on, made by mmdebstrap from the machine's own mirror."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING, NamedTuple

from ops.child_process import ChildFailedError, run_with_progress
from ops.images.build import values_tag

if TYPE_CHECKING:
    from collections.abc import Callable

# Debian 13 is stable, and its Python is the image's 3.13. Testing moves: its Python changed overnight.
SUITE = "trixie"
POCKETS = ("", "-updates", "-security")
REPOSITORY = "airflow-ha/airgap-debian"
# mmdebstrap's options that shape the image. The mirror is not among them: a moved mirror is not a new image.
OPTIONS = (
    "--variant=minbase",
    # Documentation and translations, a third of the packages' size; licences stay.
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/info/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    # An image layer needs no fsync for every file.
    "--dpkgopt=force-unsafe-io",
    # A mirror's copy of a suite may be past its date; the signatures are checked all the same.
    '--aptopt=Acquire::Check-Valid-Until "false"',
    '--aptopt=Acquire::Languages "none"',
    # A container has no init system: packages must not try to start their services.
    "--customize-hook=printf '#!/bin/sh\\nexit 101\\n' > \"$1/usr/sbin/policy-rc.d\"",
    '--customize-hook=chmod 0755 "$1/usr/sbin/policy-rc.d"',
)
# 'http://mirror/debian/dists/bookworm/InRelease' mirror_debian_dists_bookworm_InRelease 0
_SIGNED_INDEX = re.compile(r"^'(\S+/)dists/(\S+)/InRelease' ", re.MULTILINE)
# Of mmdebstrap's messages those that say how far it is.
TELLING = ("running apt-get", "downloading", "extracting", "installing", "creating", "success")


class AirgapError(Exception):
    """A stand-in cannot be built on this machine; the message says what is missing and what to do."""


class AptSource(NamedTuple):
    """One suite of a mirror that the machine uses; the address ends in a slash."""

    uri: str
    suite: str


def parse_print_uris(text: str) -> list[AptSource]:
    """Reads what `apt-get --print-uris update` printed: each suite's signed index is one source."""
    return [AptSource(*match.groups()) for match in _SIGNED_INDEX.finditer(text)]


def machine_sources(*apt_options: str) -> list[AptSource]:
    """The machine's package sources as apt itself reads them, from one-line and deb822 files alike.

    Args:
        apt_options: Further words for apt-get, such as `-o Dir::Etc::sourcelist=…`.

    Returns:
        Nothing where there is no apt.
    """
    command = ["apt-get", *apt_options, "--print-uris", "update"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return []
    return parse_print_uris(answer.stdout)


def suite_lines(sources: list[AptSource], codename: str, suite: str = SUITE) -> list[str]:
    """The sources of `suite`, its updates and security fixes, on the mirrors of the machine's own release.

    Args:
        sources: The machine's sources.
        codename: The machine's own Debian release.
        suite: The wanted release.

    Returns:
        Lines for a sources.list; none where the machine has no Debian mirror: mmdebstrap has a default.
    """
    if not codename:
        return []
    mirrors = {source.suite: source.uri for source in reversed(sources)}
    pockets = [pocket for pocket in POCKETS if codename + pocket in mirrors]
    lines = [f"deb {mirrors[codename + pocket]} {suite}{pocket} main" for pocket in pockets]
    # Fixes alone are nothing to install from.
    return lines if "" in pockets else []


def host_codename() -> str:
    """The code name of the Debian that this machine runs; empty where it runs something else."""
    try:
        fields = platform.freedesktop_os_release()
    except OSError:
        return ""
    return fields.get("VERSION_CODENAME", "") if fields.get("ID") == "debian" else ""


def reference() -> str:
    """The base image's name, with a tag that changes with its options."""
    return f"{REPOSITORY}:{SUITE}-{values_tag(OPTIONS)}"


def build(report: Callable[[str], None]) -> None:
    """Makes the base image, about 15 s.

    Raises:
        AirgapError: mmdebstrap is missing and cannot be installed here, or it failed.
    """
    report("debian: making the base of the stand-in images")
    ensure_mmdebstrap(report)
    sources = suite_lines(machine_sources(), host_codename())
    # A file between the two, not a pipe: of two that fail together it could not be told which was first.
    with tempfile.TemporaryDirectory() as folder:
        archive = f"{folder}/base.tar"
        try:
            run_with_progress(["mmdebstrap", *OPTIONS, SUITE, archive, *sources], _progress, report)
            command = ["docker", "import", "--change", 'CMD ["bash"]', archive, reference()]
            run_with_progress(command, lambda _: "debian: importing", report)
        except ChildFailedError as error:
            raise AirgapError(f"the base of the stand-in images could not be built: {error}") from error


def _progress(line: str) -> str | None:
    level, _, text = line.partition(": ")
    return f"debian: {text}" if level == "I" and text.startswith(TELLING) else None


def ensure_mmdebstrap(report: Callable[[str], None]) -> None:
    """Installs mmdebstrap where that is possible and it is missing.

    Raises:
        AirgapError: It is missing, and this machine is not Debian or Ubuntu, or we are not root.
    """
    if shutil.which("mmdebstrap"):
        return
    if not shutil.which("apt-get"):
        raise AirgapError(
            "no container registry answers, and stand-in images can be built on Debian and Ubuntu only: "
            "give this machine access to a registry, or load the images with `docker load`"
        )
    if os.geteuid() != 0:
        raise AirgapError(
            "no container registry answers, and the stand-in images need mmdebstrap: "
            "run `sudo apt-get install mmdebstrap debian-archive-keyring`, then this again"
        )
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    packages = ("mmdebstrap", "debian-archive-keyring")
    report(f"installing {' and '.join(packages)}")
    install = ("apt-get", "install", "-y", "--no-install-recommends", *packages)
    for command in (("apt-get", "update"), install):
        try:
            run_with_progress(command, lambda _: None, report, environment)
        except ChildFailedError as error:
            raise AirgapError(str(error)) from error
