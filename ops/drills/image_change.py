"""The fault `replace`: containers are replaced by those of another image of the same version, and back.

`./ops/stack upgrade` does the same where the schema of the database stays.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Final

from ops import compose, rolling, settings_file
from ops.errors import FAILURE, StackError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ops.drills.catalogue import Target
    from ops.project import Project

AIRFLOW: Final = "AIRFLOW_IMAGE"
NODES: Final = {"patroni": "PATRONI_IMAGE", "redis": "REDIS_IMAGE"}
"""The settings with the images of the replicated data tier; etcd and the Sentinels have the same ones."""


def replace_containers(
    project: Project, targets: Sequence[Target], report: Callable[[str], None]
) -> Callable[[], None]:
    """Replace the containers, each healthy before the next, and return the function that reverts that.

    Args:
        project: The stack.
        targets: Nodes of the data tier; every Airflow container if empty.
        report: Prints a line of progress.

    Raises:
        StackError: An image cannot be built, or a container does not become healthy.
    """
    settings = settings_file.read(project)
    old = {name: settings[name] for name in [NODES[target.service] for target in targets] or [AIRFLOW]}
    new = {name: f"{image}-drill" for name, image in old.items()}
    for name, image in old.items():
        build(image, new[name])

    def use(images: dict[str, str]) -> None:
        settings_file.write(project, settings_file.read(project) | images)
        rolling.replace_outdated(project, report)

    def revert() -> None:
        use(old)
        compose.docker("rmi", *new.values())

    try:
        use(new)
    except BaseException:
        revert()
        raise
    return revert


def build(old: str, new: str) -> None:
    """Build an image with the content of another one.

    Raises:
        StackError: It cannot be built.
    """
    command = ["docker", "build", "--quiet", f"--tag={new}", "-"]
    dockerfile = f"FROM {old}\nLABEL airflow-ha.drill=replace\n"
    result = subprocess.run(command, input=dockerfile, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise StackError(f"cannot build the image of the drill: {result.stderr.strip()}", where=new, code=FAILURE)
