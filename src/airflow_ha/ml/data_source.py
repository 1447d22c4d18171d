"""The data source: scikit-learn's bundled digits, or a CSV file below an allowed URL.

Whoever may trigger a run names its source, and the worker reads it with its own rights. So a run may read only below
the URLs that an operator allows, and no error quotes the content.
"""

from __future__ import annotations

import csv
import io
from contextlib import closing
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from airflow_ha import beneath
from airflow_ha.ml.validation import InvalidDataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

BUNDLED_DIGITS = "digits"

SOURCE_VARIABLE: Final = "ml_data_source"
"""The Airflow Variable with the source of runs that name none."""
ROOTS_VARIABLE: Final = "ml_data_roots"
"""The Airflow Variable with the URLs below which a run may read, separated by spaces."""
DEFAULT_ROOTS: Final = ("file:///opt/airflow/artifacts/inbox",)
SCHEMES: Final = ("file", "s3", "s3a", "s3n", "gs", "gcs", "abfs", "abfss", "adl")
"""Without http: it would lead to the stack's inner services, and by redirects anywhere."""

# How CSV writers spell a missing value.
NULL_TEXTS = frozenset({"", "na", "n/a", "nan", "null", "none"})


class RefusedSourceError(ValueError):
    """The run may not read the source, so a retry cannot succeed."""


def allowed_roots() -> list[str]:
    """Return the URLs below which a run may read, from the Variables; the default source is one of them."""
    from airflow.sdk import Variable

    roots = (Variable.get(ROOTS_VARIABLE, default=None) or "").split() or list(DEFAULT_ROOTS)
    default_source = (Variable.get(SOURCE_VARIABLE, default=None) or "").strip()
    return [*roots, default_source] if default_source else roots


def exists(source: str, roots: Sequence[str]) -> bool:
    """Return whether the data is available. The bundled data always is.

    Raises:
        RefusedSourceError: the source is not below one of the roots.
    """
    if source == BUNDLED_DIGITS:
        return True
    root, path = split(source, roots)
    if is_local(root):
        try:
            open_local(root, path).close()
        except FileNotFoundError:
            return False
        return True
    from airflow.sdk import ObjectStoragePath

    storage_path = ObjectStoragePath(source)
    # s3fs answers from a cached listing, which does not show a new file.
    storage_path.fs.invalidate_cache()
    return bool(storage_path.exists())


def read(source: str, label_column: str, roots: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the features (samples x features, missing values as NaN) and the labels (missing ones as empty text).

    Raises:
        FileNotFoundError: the source does not exist.
        InvalidDataError: the source is not a table of numbers with a label column.
        RefusedSourceError: the source is not below one of the roots.
    """
    if source == BUNDLED_DIGITS:
        from sklearn.datasets import load_digits

        digits = load_digits()
        return digits.data, digits.target.astype(str)
    root, path = split(source, roots)
    if is_local(root):
        with closing(open_local(root, path)) as file:
            return parse_csv(file.read(), label_column)
    from airflow.sdk import ObjectStoragePath

    return parse_csv(ObjectStoragePath(source).read_bytes(), label_column)


def split(source: str, roots: Sequence[str]) -> tuple[str, str]:
    """Return the root of a source, and the source's path below it; empty if the source is the root itself.

    Raises:
        RefusedSourceError: no root applies, its scheme is not allowed, or the path could lead out of it.
    """
    scheme, _, rest = source.partition("://")
    # `::` chains storages (simplecache::file:///x). Parsers of URLs disagree on the other characters.
    if scheme not in SCHEMES or "::" in rest or "\\" in source or not source.isprintable():
        raise RefusedSourceError(
            f"cannot use the data source {source!r}: it is no plain URL of {', '.join(SCHEMES)}. "
            "hint: name a file such as s3://connection@bucket/images.csv"
        )
    for root in roots:
        below = root if root.endswith("/") else f"{root}/"
        path = source.removeprefix(below)
        if source == root:
            return root, ""
        if path != source and not {"", ".", ".."} & set(path.split("/")):
            return root, path
    raise RefusedSourceError(
        f"cannot use the data source {source!r}: it is not below an allowed URL. "
        f"hint: add its folder to the Airflow Variable {ROOTS_VARIABLE}"
    )


def is_local(root: str) -> bool:
    """Return whether a root is on this machine's file system."""
    return root.startswith("file://")


def open_local(root: str, path: str) -> IO[bytes]:
    """Open a file below a local root, without following links.

    Raises:
        RefusedSourceError: the path is a link, or no regular file.
    """
    folder = Path(root.removeprefix("file://"))
    if not folder.is_absolute():
        raise RefusedSourceError(f"cannot use the URL {root!r}: a local one starts with file:///")
    try:
        return beneath.open_file(folder, path) if path else beneath.open_file(folder.parent, folder.name)
    except beneath.NotBeneathError:
        raise RefusedSourceError(f"cannot read {root}/{path}: it leads through a link, or is no regular file") from None


def parse_csv(content: bytes, label_column: str) -> tuple[np.ndarray, np.ndarray]:
    """Parse CSV with a header line: the label column as text, all other columns as numbers.

    Raises:
        InvalidDataError: names the invalid line and the column's number, and quotes nothing of the content.
    """
    import numpy as np

    try:
        rows = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        header = [name.strip() for name in next(rows, [])]
        if label_column not in header:
            raise InvalidDataError(
                f"cannot parse the data: none of its {len(header)} columns is the label column {label_column!r}"
            )
        position = header.index(label_column)
        columns = [number for number in range(len(header)) if number != position]
        if not columns:
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
            label = row[position].strip()
            labels.append("" if label.lower() in NULL_TEXTS else label)
            features.append([_number(row[column], rows.line_num, column + 1) for column in columns])
    except (UnicodeDecodeError, csv.Error):
        raise InvalidDataError("cannot parse the data: it is no CSV text in UTF-8") from None
    return np.array(features, dtype=float).reshape(len(features), len(columns)), np.array(labels, dtype=str)


def _number(text: str, line: int, column: int) -> float:
    """Return the number in a cell; NaN if it is missing."""
    text = text.strip()
    if text.lower() in NULL_TEXTS:
        return float("nan")
    try:
        return float(text)
    except ValueError:
        raise InvalidDataError(f"cannot parse the data: line {line}, column {column} is not a number") from None
