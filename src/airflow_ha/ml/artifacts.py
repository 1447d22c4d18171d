"""Artifacts on a shared volume or an object store: complete or absent, and written once."""

from __future__ import annotations

import io
import json
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from airflow.sdk import ObjectStoragePath

    ArtifactPath: TypeAlias = Path | ObjectStoragePath

Document = dict[str, Any]


def once(receipt: ArtifactPath, work: Callable[[], Document]) -> Document:
    """Do the work unless its receipt exists.

    The receipt is the last file that the work writes. A worker killed in between leaves none, and the retry starts
    from the beginning.

    Args:
        receipt: path of the JSON document that proves that the work is complete.
        work: writes the artifacts and returns their metadata, small enough for XCom.

    Returns:
        The metadata; `reused` is true if the receipt existed.
    """
    existing = read_json(receipt)
    if existing is not None:
        return {**existing, "reused": True}
    metadata = work()
    write_json(receipt, metadata)
    return {**metadata, "reused": False}


def write(path: ArtifactPath, content: bytes) -> None:
    """Write or replace a file atomically: a reader sees the complete content or the previous one."""
    local = _local(path)
    if local is None:
        # An object is visible only after its upload is complete.
        path.write_bytes(content)
        return
    local.parent.mkdir(parents=True, exist_ok=True)
    # A random name: the worker of a lost try may still write when the next try starts.
    partial = local.with_name(f".{local.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(local)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: ArtifactPath, document: Document) -> None:
    """Write a JSON document, sorted and indented for human readers."""
    write(path, (json.dumps(document, indent=2, sort_keys=True) + "\n").encode())


def read_json(path: ArtifactPath) -> Document | None:
    """Return the JSON document at the path; None if there is no file."""
    try:
        return dict(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None


def write_arrays(path: ArtifactPath, **arrays: np.ndarray) -> None:
    """Write named arrays as one compressed .npz file."""
    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write(path, buffer.getvalue())


def read_arrays(path: ArtifactPath) -> dict[str, np.ndarray]:
    """Return the named arrays of an .npz file."""
    import numpy as np

    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def write_model(path: ArtifactPath, model: object) -> None:
    """Write a fitted scikit-learn object, compressed."""
    import joblib

    buffer = io.BytesIO()
    joblib.dump(model, buffer, compress=3)
    write(path, buffer.getvalue())


def read_model(path: ArtifactPath) -> Any:
    """Read a model. joblib runs code on loading, so use this only for paths that this pipeline writes."""
    import joblib

    return joblib.load(io.BytesIO(path.read_bytes()))


def _local(path: ArtifactPath) -> Path | None:
    """Return the path on this machine's file system; None for an object store."""
    if isinstance(path, Path):
        return path
    return Path(path.path) if path.protocol in ("", "file", "local") else None
