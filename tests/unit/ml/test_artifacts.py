"""Artifacts on a volume and in an object store are complete or absent, and are written once."""

from pathlib import Path

import numpy as np
import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem

from airflow_ha.ml import artifacts


@pytest.fixture(params=["pathlib", "file", "object store"])
def directory(request, tmp_path):
    if request.param == "pathlib":
        return tmp_path
    if request.param == "file":
        return ObjectStoragePath(f"file://{tmp_path}")
    attach(protocol="memory", fs=MemoryFileSystem())
    return ObjectStoragePath(f"memory://bucket{tmp_path}")


def test_written_artifacts_are_read_back(directory):
    artifacts.write_json(directory / "deep" / "a.json", {"accuracy": 0.98})
    artifacts.write_arrays(directory / "deep" / "a.npz", rows=np.arange(6).reshape(2, 3))
    artifacts.write_model(directory / "deep" / "a.joblib", {"weights": [1, 2]})

    assert artifacts.read_json(directory / "deep" / "a.json") == {"accuracy": 0.98}
    assert artifacts.read_arrays(directory / "deep" / "a.npz")["rows"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert artifacts.read_model(directory / "deep" / "a.joblib") == {"weights": [1, 2]}


def test_second_write_replaces_the_first(directory):
    artifacts.write(directory / "a", b"first")
    artifacts.write(directory / "a", b"second")

    assert (directory / "a").read_bytes() == b"second"


def test_missing_document_is_none(directory):
    assert artifacts.read_json(directory / "nothing.json") is None


def test_work_with_a_receipt_is_not_repeated(directory):
    calls = []

    def work():
        calls.append(1)
        return {"samples": 3}

    first = artifacts.once(directory / "receipt.json", work)
    second = artifacts.once(directory / "receipt.json", work)

    assert first == {"samples": 3, "reused": False}
    assert second == {"samples": 3, "reused": True}
    assert len(calls) == 1


def test_failed_work_leaves_no_receipt_and_is_repeated(directory):
    def fails():
        raise RuntimeError("killed half-way")

    with pytest.raises(RuntimeError):
        artifacts.once(directory / "receipt.json", fails)

    assert artifacts.once(directory / "receipt.json", lambda: {"samples": 3})["reused"] is False


def test_failed_write_keeps_the_old_content_and_no_partial_file(tmp_path, monkeypatch):
    artifacts.write(tmp_path / "a", b"old")

    def disk_full(descriptor):
        raise OSError("No space left on device")

    monkeypatch.setattr(artifacts.os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space left"):
        artifacts.write(tmp_path / "a", b"new")

    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_incomplete_file_is_not_visible_under_its_name(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(artifacts.os, "fsync", lambda _: seen.extend(tmp_path.iterdir()))

    artifacts.write(tmp_path / "a.json", b"{}")

    assert len(seen) == 1
    assert seen[0].name.endswith(".partial")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_partial_file_of_a_killed_worker_is_ignored(tmp_path):
    Path(tmp_path / ".receipt.json.0123.partial").write_text('{"samp')

    assert artifacts.once(tmp_path / "receipt.json", lambda: {"samples": 3})["reused"] is False


def test_paths_below_an_object_store_keep_its_connection(tmp_path):
    attach(protocol="memory", conn_id="warehouse", fs=MemoryFileSystem())
    root = ObjectStoragePath(f"memory://warehouse@bucket{tmp_path}")

    below = ObjectStoragePath(str(root)) / "runs" / "a.json"
    artifacts.write_json(below, {"a": 1})

    assert below.conn_id == "warehouse"
    assert artifacts.read_json(ObjectStoragePath(str(below))) == {"a": 1}
