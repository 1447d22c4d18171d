"""The model registry: one JSON document a version, registered or rejected and why, its model beside it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_ha.ml.artifacts import Document, read_json, write, write_json

if TYPE_CHECKING:
    from airflow_ha.ml.artifacts import ArtifactPath


def register(
    version: str,
    evaluation: Document,
    verdict: Document,
    run_directory: ArtifactPath,
    registry_directory: ArtifactPath,
) -> Document:
    """Put the winner into the registry under the version.

    Returns:
        The version's document: `outcome`, `model`, `model_path`, `accuracy`, `reason`, `decided_at` and the
        metrics, with `reused` telling whether it stood there already.
    """
    path = registry_directory / f"{version}.json"
    model_path = registry_directory / f"{version}.joblib"
    document = _document(version, evaluation, verdict) | {
        "outcome": "registered",
        "model_path": str(model_path),
    }
    if standing := _standing(path, document):
        return standing
    # The bytes as trained: nothing to load, and the same file is written however often this is tried.
    write(model_path, (run_directory / "models" / f"{evaluation['winner']}.joblib").read_bytes())
    return _record(path, document)


def reject(version: str, evaluation: Document, verdict: Document, registry_directory: ArtifactPath) -> Document:
    """Record that the version's winner was not good enough, and why. Takes back an earlier registration.

    Returns:
        The version's document as `register` returns it, with `model_path` None.
    """
    document = _document(version, evaluation, verdict) | {"outcome": "rejected", "model_path": None}
    path = registry_directory / f"{version}.json"
    return _standing(path, document) or _record(path, document)


def decision(version: str, registry_directory: ArtifactPath) -> Document:
    """Look up what was decided on a version.

    Raises:
        FileNotFoundError: nothing has been decided yet.
    """
    document = read_json(registry_directory / f"{version}.json")
    if document is None:
        raise FileNotFoundError(f"the registry {registry_directory} has no document on version {version}")
    return document


def _document(version: str, evaluation: Document, verdict: Document) -> Document:
    return {
        "version": version,
        "model": evaluation["winner"],
        "accuracy": evaluation["accuracy"],
        "macro_f1": evaluation["macro_f1"],
        "candidates": evaluation["candidates"],
        "required_accuracy": verdict["required_accuracy"],
        "reason": verdict["reason"],
    }


def _standing(path: ArtifactPath, document: Document) -> Document | None:
    """The document already recorded, if it says the same (a gate moved since then makes a new decision)."""
    existing = read_json(path)
    if existing is None or {name: existing.get(name) for name in document} != document:
        return None
    return {**existing, "reused": True}


def _record(path: ArtifactPath, document: Document) -> Document:
    recorded = {**document, "decided_at": datetime.now(UTC).isoformat(timespec="seconds")}
    write_json(path, recorded)
    return {**recorded, "reused": False}
