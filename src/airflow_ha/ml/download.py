"""Copy the data to the run's directory, so that every later step reads the same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_ha.ml import data_source
from airflow_ha.ml.artifacts import Document, once, write_arrays

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_ha.ml.artifacts import ArtifactPath


def download(source: str, label_column: str, roots: Sequence[str], run_directory: ArtifactPath) -> Document:
    """Copy the data to `dataset.npz` in the run's directory.

    Returns:
        `source`, `samples` and `features` (counts).

    Raises:
        FileNotFoundError: the source does not exist.
        InvalidDataError: the source is not a table of numbers with a label column.
        RefusedSourceError: the source is not below one of the roots.
    """

    def work() -> Document:
        features, labels = data_source.read(source, label_column, roots)
        write_arrays(run_directory / "dataset.npz", features=features, labels=labels)
        return {"source": source, "samples": features.shape[0], "features": features.shape[1]}

    return once(run_directory / "download.json", work)
