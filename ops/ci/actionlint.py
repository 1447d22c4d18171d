"""`python -m ops.ci.actionlint FILES`: check GitHub's workflows with actionlint, which is in no Python package.

It runs in its official image; where that cannot be pulled, in one that is built from its Go module.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from ops.images import debian_base, fallback_images
from ops.images.image_registry import REGISTRY_ANSWER_SECONDS, pull
from ops.images.progress import LineProgress
from ops.images.resolve import ImageError, images_choice, is_local
from ops.images.versions import read_images_env
from ops.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

VERSION: Final = "ACTIONLINT_VERSION"
REPOSITORY: Final = "rhysd/actionlint"


def image(
    root: Path,
    report: Callable[[str], None],
    environ: Mapping[str, str] = os.environ,
    answer_seconds: float = REGISTRY_ANSWER_SECONDS,
) -> str:
    """Return an image with actionlint, once it is on this machine.

    Raises:
        ImageError: STACK_IMAGES allows only the official image, and that cannot be pulled.
        AirgapError: The base of the fallback image cannot be built.
        ChildFailedError: The fallback image cannot be built.
    """
    progress = LineProgress(report)
    choice = images_choice(environ)
    official = f"{REPOSITORY}:{read_images_env(root)[VERSION]}"
    fallback = fallback_images.reference(root, VERSION)
    if choice != "airgap" and is_local(official):
        return official
    if choice != "official" and is_local(fallback):
        return fallback
    if choice != "airgap":
        refusal = pull(official, progress.reporter("actionlint"), answer_seconds)
        if refusal is None:
            return official
        if choice == "official":
            raise ImageError(f"cannot pull {official}: {refusal}\nhint: load the image with `docker load`")
    if not is_local(debian_base.reference()):
        debian_base.build(progress.reporter("debian"))
    fallback_images.build(root, VERSION, progress.reporter("actionlint"))
    return fallback


def check(root: Path, reference: str, files: list[str]) -> int:
    """Run actionlint on workflows, and shellcheck on the scripts in them; return the exit code, 0 without findings.

    Args:
        root: The repository, or another folder with .github/ in it.
        reference: The image.
        files: The workflows, relative to the root.
    """
    command = ["docker", "run", "--rm", "--network=none", "--read-only", "--cap-drop=ALL"]
    command += [f"--volume={root / '.github'}:/repository/.github:ro", "--workdir=/repository"]
    # Only in a folder with a .git does it check the repository's own actions.
    command += ["--tmpfs=/repository/.git", reference, "-no-color", *files]
    return subprocess.run(command, check=False).returncode


def main() -> None:
    """Check the files named on the command line."""

    def report(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    sys.exit(check(ROOT, image(ROOT, report), sys.argv[1:]))


if __name__ == "__main__":
    main()
