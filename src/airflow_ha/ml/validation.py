"""Check whether the data is fit for training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_ha.ml.artifacts import Document, once, read_arrays

if TYPE_CHECKING:
    import numpy as np

    from airflow_ha.ml.artifacts import ArtifactPath

MINIMUM_SAMPLES = 1_000
MAXIMUM_NULL_SHARE = 0.05
# The training, validation and test parts each need samples of every class.
MINIMUM_SAMPLES_OF_A_CLASS = 5


class InvalidDataError(ValueError):
    """The data is unfit, so a retry with the same data cannot succeed."""


def validate(run_directory: ArtifactPath) -> Document:
    """Check the downloaded data.

    Unfit data is deleted. After the source is corrected, clear the run from the download on: it reads the source again.

    Returns:
        `samples`, `null_share` (0 to 1) and `classes`.

    Raises:
        InvalidDataError: names the figures that are out of bounds.
        FileNotFoundError: the data was not downloaded.
    """

    def work() -> Document:
        dataset = read_arrays(run_directory / "dataset.npz")
        try:
            return check(dataset["features"], dataset["labels"])
        except InvalidDataError:
            for name in ("download.json", "dataset.npz"):
                (run_directory / name).unlink(missing_ok=True)
            raise

    return once(run_directory / "validation.json", work)


def check(features: np.ndarray, labels: np.ndarray) -> Document:
    """Compare the data with the bounds above.

    Raises:
        InvalidDataError: names every figure that is out of bounds.
    """
    import numpy as np

    samples = len(labels)
    nulls = int(np.count_nonzero(~np.isfinite(features)) + np.count_nonzero(labels == ""))
    cells = features.size + labels.size
    null_share = nulls / cells if cells else 0.0
    classes, sizes = np.unique(labels[labels != ""], return_counts=True)

    faults = []
    if samples < MINIMUM_SAMPLES:
        faults.append(f"{samples:,} samples, at least {MINIMUM_SAMPLES:,} are needed")
    if null_share > MAXIMUM_NULL_SHARE:
        faults.append(
            f"{null_share:.2%} nulls ({nulls:,} of {cells:,} values), at most {MAXIMUM_NULL_SHARE:.0%} are allowed"
        )
    if len(classes) < 2:
        faults.append(f"{len(classes)} classes, at least 2 are needed")
    elif sizes.min() < MINIMUM_SAMPLES_OF_A_CLASS:
        faults.append(
            f"the smallest of {len(classes)} classes has {sizes.min()} samples, "
            f"at least {MINIMUM_SAMPLES_OF_A_CLASS} of each are needed"
        )
    if faults:
        raise InvalidDataError("cannot train on the data: " + "; ".join(faults))
    return {"samples": samples, "null_share": null_share, "classes": len(classes)}
