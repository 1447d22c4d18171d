"""Removal of old artifacts of `ml_pipeline_dag`, and of objects of XComs, on the shared volume.

Object stores have lifecycle rules of their own for both. Tasks write to this volume, so no link is followed: a link to
another folder would remove that one's files.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow_ha import beneath
from airflow_ha.maintenance.removal import Removal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from airflow_ha.maintenance.pace import Pace

RUNS, REGISTRY = "runs", "registry"
"""The folders of run_folder.py in airflow_ha.ml."""
KEEP: Final = ".keep"
"""A file `VERSION.keep` beside a version's document keeps the version."""
SUFFIXES: Final = (".json", ".joblib", KEEP, ".partial")
"""A version's document, its model and its pin, and what a killed worker left of them."""
DOCUMENT_BYTES: Final = 1024 * 1024
BACKEND: Final = "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend"


def entries(root: Path, name: str) -> Iterator[tuple[int, str]]:
    """Yield the content of a folder below another one; nothing if there is none, or a link in its place.

    Yields:
        The descriptor of the folder, and the name of an entry.
    """
    with (
        suppress(FileNotFoundError, NotADirectoryError, beneath.NotBeneathError),
        beneath.open_folder(root, name) as descriptor,
    ):
        for entry in sorted(os.listdir(descriptor)):  # noqa: PTH208
            yield descriptor, entry


def size_and_change(parent: int, name: str) -> tuple[int, float]:
    """Return the bytes of a file, or of a folder with its content, and the time of the last change in it."""
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    size, changed = status.st_size, status.st_mtime
    with suppress(OSError):  # it is a file
        for _, folders, files, descriptor in os.fwalk(name, dir_fd=parent, follow_symlinks=False):
            for inner in [*folders, *files]:
                with suppress(FileNotFoundError):
                    status = os.stat(inner, dir_fd=descriptor, follow_symlinks=False)
                    size += status.st_size
                    changed = max(changed, status.st_mtime)
    return size, changed


def delete(parent: int, name: str) -> None:
    """Delete a file, or a folder with its content."""
    try:
        os.unlink(name, dir_fd=parent)
    except IsADirectoryError:
        shutil.rmtree(name, ignore_errors=True, dir_fd=parent)


def remove_folders(
    kind: str, found: Iterable[tuple[int, str]], before: float, pace: Pace, *, is_dry_run: bool
) -> Removal:
    """Remove the folders in which nothing changed since a time.

    Args:
        kind: The name of what goes.
        found: The descriptor of the parent, and the name, of each.
        before: The time.
        pace: When to pause.
        is_dry_run: Whether the folders are only counted.
    """
    number = total = 0
    for parent, name in found:
        size, changed = size_and_change(parent, name)
        if changed < before:
            if not is_dry_run:
                delete(parent, name)
            number, total = number + 1, total + size
        pace.rest()
    return Removal(kind, number, total)


def remove_run_folders(root: Path, before: float, pace: Pace, *, is_dry_run: bool) -> Removal:
    """Remove the folders of pipeline runs in which nothing changed since a time."""
    return remove_folders("run_artifacts", entries(root, RUNS), before, pace, is_dry_run=is_dry_run)


def remove_models(root: Path, kept: int, before: float, pace: Pace, *, is_dry_run: bool) -> Removal:
    """Remove the versions of the registry that its policy does not keep; a version is its files.

    Args:
        root: The folder of artifacts.
        kept: Number of registered versions that stay; at least the newest does, which is the one in use.
        before: Rejections, and files without a document, go if they are older than this time.
        pace: When to pause.
        is_dry_run: Whether the versions are only counted.
    """
    files = files_by_version(entries(root, REGISTRY))
    documents = {version: read_document(root / REGISTRY, version) for version in files}
    gone = outdated(documents, files, max(1, kept), before)
    total = 0
    for suffix in SUFFIXES:  # the document before the model that it names
        for registry, name in entries(root, REGISTRY):
            if name.removesuffix(suffix) in gone and name.endswith(suffix):
                total += os.stat(name, dir_fd=registry, follow_symlinks=False).st_size
                if not is_dry_run:
                    delete(registry, name)
            pace.rest()
    return Removal("models", len(gone), total)


def files_by_version(found: Iterable[tuple[int, str]]) -> dict[str, dict[str, float]]:
    """Return the files of each version in the registry, with the times of their last change."""
    files: dict[str, dict[str, float]] = {}
    for registry, name in found:
        version, suffix = os.path.splitext(name)  # noqa: PTH122
        if suffix in SUFFIXES:
            changed = os.stat(name, dir_fd=registry, follow_symlinks=False).st_mtime
            files.setdefault(version, {})[name] = changed
    return files


def read_document(registry: Path, version: str) -> dict[str, Any]:
    """Return a version's document; empty if it has none that can be read."""
    with suppress(OSError, ValueError, RecursionError), beneath.open_file(registry, f"{version}.json") as file:
        document = json.loads(file.read(DOCUMENT_BYTES))
        return document if isinstance(document, dict) else {}
    return {}


def outdated(
    documents: Mapping[str, Mapping[str, Any]], files: Mapping[str, Mapping[str, float]], kept: int, before: float
) -> set[str]:
    """Return the versions that go.

    Args:
        documents: By version; empty for files without a document.
        files: The files of each version, with the times of their last change.
        kept: Number of registered versions that stay, the newest first.
        before: Versions that are not registered go if they are older than this time.
    """
    registered = [version for version in documents if documents[version].get("outcome") == "registered"]
    newest = sorted(registered, key=lambda version: str(documents[version].get("decided_at")), reverse=True)
    others = {version for version in documents.keys() - registered if max(files[version].values()) < before}
    pinned = {version for version in documents if f"{version}{KEEP}" in files[version]}
    return (set(newest[kept:]) | others) - pinned


def xcom_folder(environment: Mapping[str, str]) -> Path | None:
    """Return the folder of XCom objects; None if they are in the database, or in another store."""
    if environment.get("AIRFLOW__CORE__XCOM_BACKEND") != BACKEND:
        return None
    scheme, _, path = environment.get("AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH", "").partition("://")
    return Path(path) if scheme == "file" and path.startswith("/") else None


def remove_xcoms(
    root: Path, existing_runs: Callable[[str], Collection[str]], before: float, pace: Pace, *, is_dry_run: bool
) -> Removal:
    """Remove the objects of runs that are no longer in the database: the folders DAG/RUN.

    Args:
        root: The folder of XCom objects.
        existing_runs: Returns the runs of a DAG.
        before: Folders that changed after this time stay: their run may be new.
        pace: When to pause.
        is_dry_run: Whether the folders are only counted.
    """
    found = (
        (folder, run_id)
        for dag_id in sorted(entry.name for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False))
        for runs in [existing_runs(dag_id)]
        for folder, run_id in entries(root, dag_id)
        if run_id not in runs
    )
    return remove_folders("xcom_objects", found, before, pace, is_dry_run=is_dry_run)
