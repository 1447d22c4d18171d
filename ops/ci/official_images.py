"""`python -m ops.ci.official_images`: the official images and the Airflow image on them, as lines for $GITHUB_OUTPUT.

Workflows build and scan these images, so that a version is written only in compose/images.env.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ops.images.resolve import AIRFLOW_BASE_IMAGE, AIRFLOW_DOCKERFILE, airflow_reference, official_references
from ops.project import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def facts(root: Path) -> dict[str, str]:
    """Return the values that workflows need.

    Returns:
        `reference`, the name that `ops/stack` expects for the Airflow image on the official base;
        `dockerfile` and `base`, the inputs of its build;
        `images`, the other official images as a JSON list of `name` and `reference`.
    """
    official = official_references(root, {})
    base = official.pop(AIRFLOW_BASE_IMAGE)
    images = [
        {"name": key.removesuffix("_IMAGE").lower().replace("_", "-"), "reference": reference}
        for key, reference in official.items()
    ]
    return {
        "reference": airflow_reference(root, base),
        "dockerfile": AIRFLOW_DOCKERFILE,
        "base": base,
        "images": json.dumps(images),
    }


if __name__ == "__main__":
    for name, value in facts(ROOT).items():
        print(f"{name}={value}")
