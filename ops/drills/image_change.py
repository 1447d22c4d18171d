"""The fault `replace`: every Airflow container is replaced by one of another image of the same version, and back.

`./ops/stack upgrade` does the same where the schema of the database stays.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Final

from ops import compose, rolling, settings_file
from ops.errors import FAILURE, StackError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ops.project import Project

VARIABLE: Final = "AIRFLOW_IMAGE"


def replace_containers(project: Project, report: Callable[[str], None]) -> Callable[[], None]:
    """Replace the containers, each healthy before the next, and return the function that reverts that.

    Raises:
        StackError: The image cannot be built, or a container does not become healthy.
    """
    old = settings_file.read(project)[VARIABLE]
    new = f"{old}-drill"
    build = ["docker", "build", "--quiet", f"--tag={new}", "-"]
    dockerfile = f"FROM {old}\nLABEL airflow-ha.drill=replace\n"
    result = subprocess.run(build, input=dockerfile, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise StackError(f"cannot build the image of the drill: {result.stderr.strip()}", where=new, code=FAILURE)

    def use(image: str) -> None:
        settings_file.write(project, settings_file.read(project) | {VARIABLE: image})
        rolling.replace_outdated(project, report)

    def revert() -> None:
        use(old)
        compose.docker("rmi", new)

    try:
        use(new)
    except BaseException:
        revert()
        raise
    return revert
