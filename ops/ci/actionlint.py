"""`python -m ops.ci.actionlint FILES`: checks GitHub's workflows with actionlint, which no Python package holds.

It runs in its official image; where that cannot be had, in one that is built from its Go module.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from ops.images import debian_base, fallback_images
from ops.images.image_registry import REGISTRY_ANSWER_SECONDS, pull
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
    """Makes sure that an image with actionlint is on this machine, and says which.

    Raises:
        ImageError: STACK_IMAGES allows the official image only, and that cannot be pulled.
        AirgapError: The stand-in's base cannot be built.
        ChildFailedError: The stand-in cannot be built.
    """
    choice = images_choice(environ)
    official = f"{REPOSITORY}:{read_images_env(root)[VERSION]}"
    stand_in = fallback_images.reference(root, VERSION)
    if choice != "airgap" and is_local(official):
        return official
    if choice != "official" and is_local(stand_in):
        return stand_in
    if choice != "airgap":
        refusal = pull(official, report, answer_seconds)
        if refusal is None:
            return official
        if choice == "official":
            raise ImageError(f"{official} cannot be pulled: {refusal}")
    if not is_local(debian_base.reference()):
        debian_base.build(report)
    fallback_images.build(root, VERSION, report)
    return stand_in


def check(root: Path, reference: str, files: list[str]) -> int:
    """Runs actionlint over workflows, with shellcheck over the scripts in them.

    Args:
        root: The repository, or another folder with .github/ in it.
        reference: The image.
        files: The workflows, from the root.

    Returns:
        Its exit code: not 0 when it finds something.
    """
    command = ["docker", "run", "--rm", "--network=none", "--read-only", "--cap-drop=ALL"]
    command += [f"--volume={root / '.github'}:/repository/.github:ro", "--workdir=/repository"]
    # It looks for actions of the repository's own only where there is a .git.
    command += ["--tmpfs=/repository/.git", reference, "-no-color", *files]
    return subprocess.run(command, check=False).returncode


def main() -> None:
    """Checks the files that are named."""

    def report(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    sys.exit(check(ROOT, image(ROOT, report), sys.argv[1:]))


if __name__ == "__main__":
    main()
