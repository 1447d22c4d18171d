"""Where the data comes from: scikit-learn's bundled digits, or a CSV file in any object storage."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from airflow_ha.ml.validation import InvalidDataError

if TYPE_CHECKING:
    import numpy as np

BUNDLED_DIGITS = "digits"

# What CSV writers put where a value is missing.
NULL_TEXTS = frozenset({"", "na", "n/a", "nan", "null", "none"})


def exists(source: str) -> bool:
    """Whether the data is there to be read. The bundled data always is."""
    if source == BUNDLED_DIGITS:
        return True
    from airflow.sdk import ObjectStoragePath

    path = ObjectStoragePath(source)
    # s3fs answers from a cached listing; whoever waits for a file must ask the store.
    path.fs.invalidate_cache()
    return bool(path.exists())


def read(source: str, label_column: str) -> tuple[np.ndarray, np.ndarray]:
    """Read features (samples x features, missing values as NaN) and labels (missing ones as empty text).

    Raises:
        FileNotFoundError: nothing is at the source.
        InvalidDataError: what is there is no table of numbers with a label column.
    """
    if source == BUNDLED_DIGITS:
        from sklearn.datasets import load_digits

        digits = load_digits()
        return digits.data, digits.target.astype(str)
    from airflow.sdk import ObjectStoragePath

    return parse_csv(ObjectStoragePath(source).read_bytes(), label_column)


def parse_csv(content: bytes, label_column: str) -> tuple[np.ndarray, np.ndarray]:
    """Parse CSV with a header line: the label column as text, every other column as numbers.

    Raises:
        InvalidDataError: with the line and column at fault.
    """
    import numpy as np

    try:
        rows = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        header = [name.strip() for name in next(rows, [])]
        if label_column not in header:
            raise InvalidDataError(
                f"the data has no label column {label_column!r}; it has {', '.join(header) or 'no columns'}"
            )
        position = header.index(label_column)
        names = header[:position] + header[position + 1 :]
        if not names:
            raise InvalidDataError(f"the data has no columns besides the label column {label_column!r}")
        features: list[list[float]] = []
        labels: list[str] = []
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise InvalidDataError(f"line {rows.line_num} has {len(row)} values, the header has {len(header)}")
            label = row.pop(position).strip()
            labels.append("" if label.lower() in NULL_TEXTS else label)
            features.append([_number(text, rows.line_num, name) for name, text in zip(names, row, strict=True)])
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidDataError(f"the data is no CSV text in UTF-8: {error}") from error
    return np.array(features, dtype=float).reshape(len(features), len(names)), np.array(labels, dtype=str)


def _number(text: str, line: int, column: str) -> float:
    """The number a cell holds; NaN for a missing one."""
    text = text.strip()
    if text.lower() in NULL_TEXTS:
        return float("nan")
    try:
        return float(text)
    except ValueError:
        raise InvalidDataError(f"line {line}, column {column!r}: {text!r} is not a number") from None
