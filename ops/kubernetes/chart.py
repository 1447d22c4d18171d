"""The official Airflow chart: a file that AIRFLOW_CHART names, or a download, checked by its sum; never committed."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ops.errors import FAILURE, StackError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VERSION: Final = "1.22.0"
SHA256: Final = "1f7d1dfe3d58e2c54899950aba907a43625a18c8b6fb3c54760c21592129a5b6"
URL: Final = f"https://downloads.apache.org/airflow/helm-chart/{VERSION}/airflow-{VERSION}.tgz"
"""Apache's own server; the same file as in the chart repository https://airflow.apache.org."""
VARIABLE: Final = "AIRFLOW_CHART"
DOWNLOAD_SECONDS: Final = 60
KUBERNETES: Final = "1.34.4"
"""The version that `render` and the checks render for; the test cluster has it."""


def cache_folder() -> Path:
    """Return the folder of this user for what is downloaded or built once."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "airflow-ha")


def is_at_hand() -> bool:
    """Return whether the chart is on this machine."""
    return bool(os.environ.get(VARIABLE)) or cached().exists()


def cached() -> Path:
    """Return the path of the downloaded chart."""
    return cache_folder() / f"airflow-{VERSION}.tgz"


def archive() -> Path:
    """Return the chart's archive, downloaded if it is not on this machine.

    Raises:
        StackError: It cannot be had, or is not the file of this version.
    """
    named = os.environ.get(VARIABLE)
    path = Path(named) if named else cached()
    if not named and not path.exists():
        download(path)
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise StackError(
            f"cannot read the chart: {error.strerror}", where=str(path), hint=f"set {VARIABLE} to airflow-{VERSION}.tgz"
        ) from error
    if found != SHA256:
        raise StackError(
            f"cannot use the chart: its SHA-256 is {found[:12]}…, that of version {VERSION} is {SHA256[:12]}…",
            where=str(path),
            hint=f"set {VARIABLE} to the file airflow-{VERSION}.tgz, unchanged",
        )
    return path


def download(path: Path) -> None:
    """Download the chart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            urllib.request.urlopen(URL, timeout=DOWNLOAD_SECONDS) as answer,
            tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as part,
        ):
            shutil.copyfileobj(answer, part)
    except OSError as error:
        raise StackError(
            f"cannot download the chart: {error}",
            where=URL,
            hint=f"download it elsewhere, and set {VARIABLE} to the file",
            code=FAILURE,
        ) from error
    Path(part.name).rename(path)


def has_helm() -> bool:
    """Return whether helm is on this machine."""
    return bool(shutil.which("helm")) or built("helm").exists()


def built(name: str) -> Path:
    """Return the path of a program that `kubernetes cluster build` builds."""
    return cache_folder() / "kubernetes/bin" / name


def program(name: str) -> str:
    """Return the path of helm or kubectl: from PATH, or as `cluster up` has built it.

    Raises:
        StackError: There is none.
    """
    found = shutil.which(name) or (str(built(name)) if built(name).exists() else "")
    if not found:
        raise StackError(f"cannot find {name}", hint=f"install {name}, or run ./ops/stack kubernetes cluster build")
    return found


def template(values: Path, settings: Mapping[str, str], more: Sequence[Path] = ()) -> str:
    """Return the manifests that the chart renders.

    Args:
        values: The file of the values.
        settings: The settings of the cluster.
        more: Further files of values.

    Raises:
        StackError: Helm refused the values.
    """
    command = [
        *(program("helm"), "template", settings["KUBERNETES_RELEASE"], str(archive())),
        *(f"--namespace={settings['KUBERNETES_NAMESPACE']}", f"--kube-version={KUBERNETES}"),
        *(f"--values={file}" for file in (values, *more)),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise StackError(
            f"cannot render the chart:\n{result.stderr.strip()}", hint="fix the values that the message names"
        )
    return result.stdout
