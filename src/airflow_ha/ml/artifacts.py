"""Artifacts on a shared volume or an object store: whole or absent, and made once."""

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
    """Do the work unless its receipt is there already.

    The receipt is written after everything the work has written, so a worker killed half-way leaves none and
    the retry starts over.

    Args:
        receipt: where the JSON document that proves the work is kept.
        work: makes the artifacts and returns their metadata, small enough for XCom.

    Returns:
        The metadata, with `reused` telling whether it was found rather than made.
    """
    found = read_json(receipt)
    if found is not None:
        return {**found, "reused": True}
    made = work()
    write_json(receipt, made)
    return {**made, "reused": False}


def write(path: ArtifactPath, content: bytes) -> None:
    """Put the content at the path, replacing what was there; a reader sees all of it or nothing."""
    local = _local(path)
    if local is None:
        # An object store shows an object only when its upload is complete.
        path.write_bytes(content)
        return
    local.parent.mkdir(parents=True, exist_ok=True)
    # A random name: a worker thought dead may still be writing when its task's next attempt starts.
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
    """Write a JSON document (sorted and indented: people read these too)."""
    write(path, (json.dumps(document, indent=2, sort_keys=True) + "\n").encode())


def read_json(path: ArtifactPath) -> Document | None:
    """Read a JSON document; None where there is none."""
    try:
        return dict(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None


def write_arrays(path: ArtifactPath, **arrays: np.ndarray) -> None:
    """Write named numpy arrays as one compressed .npz file."""
    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write(path, buffer.getvalue())


def read_arrays(path: ArtifactPath) -> dict[str, np.ndarray]:
    """Read what `write_arrays` wrote."""
    import numpy as np

    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def write_model(path: ArtifactPath, model: object) -> None:
    """Write a fitted scikit-learn object with joblib."""
    import joblib

    buffer = io.BytesIO()
    joblib.dump(model, buffer, compress=3)
    write(path, buffer.getvalue())


def read_model(path: ArtifactPath) -> Any:
    """Read what `write_model` wrote. joblib runs code on loading: only for paths this pipeline writes."""
    import joblib

    return joblib.load(io.BytesIO(path.read_bytes()))


def _local(path: ArtifactPath) -> Path | None:
    """The path on this machine's file system, or None for a path in an object store."""
    if isinstance(path, Path):
        return path
    return Path(path.path) if path.protocol in ("", "file", "local") else None
