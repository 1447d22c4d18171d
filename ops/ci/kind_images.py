"""`python -m ops.ci.kind_images PROFILE…`: the images that no registry has, as settings of `./ops/stack kubernetes`.

They are pulled or built first. kind's nodes have neither: `kind load docker-image` copies them.
"""

from __future__ import annotations

import sys

from ops.images.resolve import resolve_images
from ops.project import ROOT

OWN = ("AIRFLOW_IMAGE", "PATRONI_IMAGE")


def main() -> None:
    """Print a line KEY=IMAGE for each."""
    images = resolve_images(ROOT, lambda line: print(line, file=sys.stderr), sys.argv[1:])
    for key in OWN:
        if key in images:
            print(f"{key}={images[key].reference}")


if __name__ == "__main__":
    main()
