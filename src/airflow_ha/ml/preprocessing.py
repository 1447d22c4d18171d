"""Clean the data and split it, deterministically."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_ha.ml.artifacts import Document, once, read_arrays, write_arrays

if TYPE_CHECKING:
    import numpy as np

    from airflow_ha.ml.artifacts import ArtifactPath

SEED = 20260920
VALIDATION_SHARE = 0.2
TEST_SHARE = 0.2


def preprocess(run_directory: ArtifactPath) -> Document:
    """Drop rows without a label, mark infinite values as missing, and split 60/20/20 within each class.

    Each model imputes and scales by itself: both learn from the training part only, and a registered model accepts raw
    values.

    Returns:
        `train`, `validation` and `test`: the number of samples in each part.
    """

    def work() -> Document:
        import numpy as np

        dataset = read_arrays(run_directory / "dataset.npz")
        labelled = dataset["labels"] != ""
        labels = dataset["labels"][labelled]
        features = dataset["features"][labelled]
        # The imputer treats only NaN as missing.
        features[~np.isfinite(features)] = np.nan
        parts = split(labels)
        arrays = {name: features[rows] for name, rows in parts.items()}
        arrays |= {f"{name}_labels": labels[rows] for name, rows in parts.items()}
        write_arrays(run_directory / "split.npz", **arrays)
        return {name: len(rows) for name, rows in parts.items()}

    return once(run_directory / "preprocessing.json", work)


def split(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Return the row numbers of `train`, `validation` and `test`, stratified by class.

    This uses numpy alone: importing scikit-learn costs a task's process 2 s.
    """
    import numpy as np

    random = np.random.default_rng(SEED)
    parts: dict[str, list[np.ndarray]] = {"train": [], "validation": [], "test": []}
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        test = round(len(rows) * TEST_SHARE)
        validation = test + round(len(rows) * VALIDATION_SHARE)
        parts["test"].append(rows[:test])
        parts["validation"].append(rows[test:validation])
        parts["train"].append(rows[validation:])
    return {name: random.permutation(np.concatenate(rows)) for name, rows in parts.items()}
