"""The model registry: one JSON document per version with the decision and its reason, and the model next to it."""

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
    """Register the winner under the version.

    Returns:
        The version's document: `outcome`, `model`, `model_path`, `accuracy`, `reason`, `decided_at` and the metrics;
        `reused` is true if the same decision was recorded before.
    """
    path = registry_directory / f"{version}.json"
    model_path = registry_directory / f"{version}.joblib"
    document = _document(version, evaluation, verdict) | {
        "outcome": "registered",
        "model_path": str(model_path),
    }
    if recorded := _recorded(path, document):
        return recorded
    # Copied as bytes: nothing is loaded, and each try writes the same file.
    write(model_path, (run_directory / "models" / f"{evaluation['winner']}.joblib").read_bytes())
    return _record(path, document)


def reject(version: str, evaluation: Document, verdict: Document, registry_directory: ArtifactPath) -> Document:
    """Record that the version's winner is below the quality gate, and why. This replaces an earlier registration.

    Returns:
        The version's document as in `register`, with `model_path` None.
    """
    document = _document(version, evaluation, verdict) | {"outcome": "rejected", "model_path": None}
    path = registry_directory / f"{version}.json"
    return _recorded(path, document) or _record(path, document)


def decision(version: str, registry_directory: ArtifactPath) -> Document:
    """Return the version's document.

    Raises:
        FileNotFoundError: the registry has no decision on this version.
    """
    document = read_json(registry_directory / f"{version}.json")
    if document is None:
        raise FileNotFoundError(f"cannot read the decision: {registry_directory} has no document on version {version}")
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


def _recorded(path: ArtifactPath, document: Document) -> Document | None:
    """Return the recorded document if it holds the same decision; a changed gate makes a new decision."""
    existing = read_json(path)
    if existing is None or {name: existing.get(name) for name in document} != document:
        return None
    return {**existing, "reused": True}


def _record(path: ArtifactPath, document: Document) -> Document:
    recorded = {**document, "decided_at": datetime.now(UTC).isoformat(timespec="seconds")}
    write_json(path, recorded)
    return {**recorded, "reused": False}
