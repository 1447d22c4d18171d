"""The data source: scikit-learn's bundled digits, or a CSV file in any object storage."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from airflow_ha.ml.validation import InvalidDataError

if TYPE_CHECKING:
    import numpy as np

BUNDLED_DIGITS = "digits"

# How CSV writers spell a missing value.
NULL_TEXTS = frozenset({"", "na", "n/a", "nan", "null", "none"})


def exists(source: str) -> bool:
    """Return whether the data is available. The bundled data always is."""
    if source == BUNDLED_DIGITS:
        return True
    from airflow.sdk import ObjectStoragePath

    path = ObjectStoragePath(source)
    # s3fs answers from a cached listing, which does not show a new file.
    path.fs.invalidate_cache()
    return bool(path.exists())


def read(source: str, label_column: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the features (samples x features, missing values as NaN) and the labels (missing ones as empty text).

    Raises:
        FileNotFoundError: the source does not exist.
        InvalidDataError: the source is not a table of numbers with a label column.
    """
    if source == BUNDLED_DIGITS:
        from sklearn.datasets import load_digits

        digits = load_digits()
        return digits.data, digits.target.astype(str)
    from airflow.sdk import ObjectStoragePath

    return parse_csv(ObjectStoragePath(source).read_bytes(), label_column)


def parse_csv(content: bytes, label_column: str) -> tuple[np.ndarray, np.ndarray]:
    """Parse CSV with a header line: the label column as text, all other columns as numbers.

    Raises:
        InvalidDataError: names the invalid line and column.
    """
    import numpy as np

    try:
        rows = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        header = [name.strip() for name in next(rows, [])]
        if label_column not in header:
            raise InvalidDataError(
                f"cannot parse the data: no label column {label_column!r}; it has {', '.join(header) or 'no columns'}"
            )
        position = header.index(label_column)
        names = header[:position] + header[position + 1 :]
        if not names:
            raise InvalidDataError(f"cannot parse the data: no columns besides the label column {label_column!r}")
        features: list[list[float]] = []
        labels: list[str] = []
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise InvalidDataError(
                    f"cannot parse the data: line {rows.line_num} has {len(row)} values, the header has {len(header)}"
                )
            label = row.pop(position).strip()
            labels.append("" if label.lower() in NULL_TEXTS else label)
            features.append([_number(text, rows.line_num, name) for name, text in zip(names, row, strict=True)])
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidDataError(f"cannot parse the data: no CSV text in UTF-8: {error}") from error
    return np.array(features, dtype=float).reshape(len(features), len(names)), np.array(labels, dtype=str)


def _number(text: str, line: int, column: str) -> float:
    """Return the number in a cell; NaN if it is missing."""
    text = text.strip()
    if text.lower() in NULL_TEXTS:
        return float("nan")
    try:
        return float(text)
    except ValueError:
        raise InvalidDataError(
            f"cannot parse the data: line {line}, column {column!r}: {text!r} is not a number"
        ) from None
