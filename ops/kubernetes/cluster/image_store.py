"""The images of the test cluster: exported from Docker, unpacked once, and shared by the nodes through hard links."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ops import compose
from ops.kubernetes.cluster import programs
from ops.kubernetes.cluster.networks import run
from ops.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PAUSE: Final = "airflow-ha/test-pause:1"
SNAPSHOTTERS: Final = ("aufs", "btrfs", "devmapper", "zfs")
START_SECONDS: Final = 60.0


def golden() -> Path:
    """Return the folder of the unpacked images."""
    return programs.folder() / "images"


def disabled(*besides: str) -> list[str]:
    """Return the plugins of containerd that are off."""
    return [*(f"io.containerd.snapshotter.v1.{name}" for name in SNAPSHOTTERS), *besides]


def prepare(images: Sequence[str], report: Callable[[str], None]) -> None:
    """Unpack the images, unless exactly these are unpacked.

    Args:
        images: Images that Docker has.
        report: Receives progress lines.

    Raises:
        StackError: Docker does not have one of them.
    """
    identities = [compose.docker("image", "inspect", "--format={{.Id}}", image).strip() for image in images]
    key = hashlib.sha256("\n".join([programs.key(), *images, *identities]).encode()).hexdigest()
    stamp = golden() / ".unpacked"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == key:
        return
    shutil.rmtree(golden(), ignore_errors=True)
    golden().mkdir(parents=True)
    import_pause()
    with tempfile.TemporaryDirectory(dir=golden()) as temporary:
        archive = Path(temporary) / "images.tar"
        report(f"exporting {len(images)} images from Docker")
        compose.docker("save", f"--output={archive}", PAUSE, *images)
        compose.docker("rmi", PAUSE)
        report("unpacking the images")
        unpack(archive, Path(temporary), report)
    stamp.write_text(key, encoding="utf-8")


def import_pause() -> None:
    """Make the image of the container that holds a pod's namespaces."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "root.tar"
        with tarfile.open(path, "w") as archive:
            archive.add(programs.program("pause"), arcname="pause")
        compose.docker("import", '--change=ENTRYPOINT ["/pause"]', "--change=USER 65535:65535", str(path), PAUSE)


def unpack(archive: Path, temporary: Path, report: Callable[[str], None]) -> None:
    """Import an archive of images into a containerd that runs for it."""
    config, address = temporary / "containerd.toml", temporary / "containerd.sock"
    config.write_text(
        CONFIG.format(
            root=golden() / "root",
            state=temporary / "state",
            socket=address,
            opt=temporary / "opt",
            disabled=disabled("io.containerd.grpc.v1.cri"),
        ),
        encoding="utf-8",
    )
    with (temporary / "log").open("wb") as log:
        child = subprocess.Popen(["nice", "-n", "10", "containerd", f"--config={config}"], stdout=log, stderr=log)
    try:
        probe = ["ctr", f"--address={address}", "version"]
        wait(
            lambda: subprocess.run(probe, capture_output=True, check=False).returncode == 0,
            START_SECONDS,
            "containerd answers",
            report,
            poll_seconds=0.3,
        )
        run("nice", "-n", "10", "ctr", f"--address={address}", "--namespace=k8s.io", "images", "import", str(archive))
    finally:
        child.terminate()
        child.wait()


CONFIG: Final = """\
version = 2
root = "{root}"
state = "{state}"
disabled_plugins = {disabled}
[grpc]
  address = "{socket}"
[ttrpc]
  address = "{socket}.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "{opt}"
"""
"""The part of containerd's configuration that a node has too."""


def copy_to(target: Path) -> None:
    """Give a node its images: the layers by hard links, the databases as copies."""
    run("cp", "--archive", "--link", str(golden() / "root"), str(target))
    for database in target.rglob("*.db"):
        original = golden() / "root" / database.relative_to(target)
        database.unlink()
        shutil.copy2(original, database)
