"""The Debian base of the fallback images, built by mmdebstrap from the machine's own mirror."""

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
    from ops.images.progress import Reporter

# Debian 13 is stable, and its Python is the image's 3.13. Testing moves: its Python changed overnight.
SUITE = "trixie"
POCKETS = ("", "-updates", "-security")
REPOSITORY = "airflow-ha/airgap-debian"
# mmdebstrap's options, which the image's tag depends on. The mirror is not among them: another mirror, the same image.
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
    # A mirror's copy of a suite may have expired; apt still checks the signatures.
    '--aptopt=Acquire::Check-Valid-Until "false"',
    '--aptopt=Acquire::Languages "none"',
    # A container has no init system: packages must not start their services.
    "--customize-hook=printf '#!/bin/sh\\nexit 101\\n' > \"$1/usr/sbin/policy-rc.d\"",
    '--customize-hook=chmod 0755 "$1/usr/sbin/policy-rc.d"',
)
# 'http://mirror/debian/dists/bookworm/InRelease' mirror_debian_dists_bookworm_InRelease 0
SIGNED_INDEX = re.compile(r"^'(\S+/)dists/(\S+)/InRelease' ", re.MULTILINE)
# The messages of mmdebstrap that show its progress.
PROGRESS_MESSAGES = ("running apt-get", "downloading", "extracting", "installing", "creating", "success")


class AirgapError(Exception):
    """This machine cannot build fallback images; the message has the reason and a hint."""


class AptSource(NamedTuple):
    """One suite of a mirror that the machine uses; the address ends in a slash."""

    uri: str
    suite: str


def parse_print_uris(text: str) -> list[AptSource]:
    """Return the sources in the output of `apt-get --print-uris update`: each suite's signed index is one."""
    return [AptSource(*match.groups()) for match in SIGNED_INDEX.finditer(text)]


def machine_sources(*apt_options: str) -> list[AptSource]:
    """Return the machine's package sources as apt reads them, from one-line and deb822 files; none without apt.

    Args:
        apt_options: More arguments for apt-get, such as `-o Dir::Etc::sourcelist=…`.
    """
    command = ["apt-get", *apt_options, "--print-uris", "update"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return []
    return parse_print_uris(done.stdout)


def suite_lines(sources: list[AptSource], codename: str, suite: str = SUITE) -> list[str]:
    """Return the sources.list of `suite`, its updates and security fixes, on the machine's own mirrors.

    Args:
        sources: The machine's sources.
        codename: The Debian release that the machine runs; empty where it runs something else.
        suite: The Debian release to install.

    Returns:
        No lines where the machine has no Debian mirror: mmdebstrap has a default.
    """
    if not codename:
        return []
    mirrors = {source.suite: source.uri for source in reversed(sources)}
    pockets = [pocket for pocket in POCKETS if codename + pocket in mirrors]
    lines = [f"deb {mirrors[codename + pocket]} {suite}{pocket} main" for pocket in pockets]
    # The main archive is not on a mirror of fixes alone.
    return lines if "" in pockets else []


def host_codename() -> str:
    """Return the code name of this machine's Debian; empty where it runs something else."""
    try:
        fields = platform.freedesktop_os_release()
    except OSError:
        return ""
    return fields.get("VERSION_CODENAME", "") if fields.get("ID") == "debian" else ""


def reference() -> str:
    """Return the base image's name; its tag changes with the options."""
    return f"{REPOSITORY}:{SUITE}-{values_tag(OPTIONS)}"


def build(report: Reporter) -> None:
    """Build the base image, in about 15 s.

    Raises:
        AirgapError: mmdebstrap is missing and cannot be installed here, or it failed.
    """
    report("building")
    ensure_mmdebstrap(report)
    sources = suite_lines(machine_sources(), host_codename())
    # A file between the two, not a pipe: if both fail, a pipe does not show which failed first.
    with tempfile.TemporaryDirectory() as folder:
        archive = f"{folder}/base.tar"
        try:
            run_with_progress(["mmdebstrap", *OPTIONS, SUITE, archive, *sources], describe, report)
            command = ["docker", "import", "--change", 'CMD ["bash"]', archive, reference()]
            run_with_progress(command, lambda _: "importing", report)
        except ChildFailedError as error:
            raise AirgapError(f"cannot build the Debian base of the fallback images: {error}") from error


def describe(line: str) -> str | None:
    """Return what a line of mmdebstrap shows of its progress; None for most lines."""
    level, _, text = line.partition(": ")
    return text if level == "I" and text.startswith(PROGRESS_MESSAGES) else None


def ensure_mmdebstrap(report: Reporter) -> None:
    """Install mmdebstrap if it is missing.

    Raises:
        AirgapError: It is missing, and this machine is not Debian or Ubuntu, or this user is not root.
    """
    if shutil.which("mmdebstrap"):
        return
    if not shutil.which("apt-get"):
        raise AirgapError(
            "cannot build fallback images: no container registry answers, and this machine is not Debian or Ubuntu\n"
            "hint: give this machine access to a registry, or load the images with `docker load`"
        )
    if os.geteuid() != 0:
        raise AirgapError(
            "cannot build fallback images: no container registry answers, and mmdebstrap is missing\n"
            "hint: run `sudo apt-get install mmdebstrap debian-archive-keyring`, then run this again"
        )
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    packages = ("mmdebstrap", "debian-archive-keyring")
    report(f"installing {' and '.join(packages)}")
    install = ("apt-get", "install", "-y", "--no-install-recommends", *packages)
    for command in (("apt-get", "update"), install):
        try:
            run_with_progress(command, lambda _: None, report, environment)
        except ChildFailedError as error:
            raise AirgapError(f"cannot install mmdebstrap: {error}") from error
