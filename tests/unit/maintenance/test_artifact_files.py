"""Old artifacts go; the model in use, pinned versions and other folders stay."""

from __future__ import annotations

import json
import os
import time

import pytest

from airflow_ha.maintenance import artifact_files
from airflow_ha.maintenance.pace import Pace
from airflow_ha.maintenance.retention import DAY

NOW = time.time()
BEFORE = NOW - 90 * DAY


@pytest.fixture
def quick(tmp_path_factory):
    return Pace(tmp_path_factory.mktemp("pace") / "alive")


def age(path, days: float) -> None:
    os.utime(path, (NOW - days * DAY,) * 2, follow_symlinks=False)


def add_version(registry, version: str, outcome: str, day: int) -> None:
    registry.mkdir(exist_ok=True)
    document = {"outcome": outcome, "decided_at": f"2026-01-{day:02}T00:00:00+00:00"}
    (registry / f"{version}.json").write_text(json.dumps(document))
    if outcome == "registered":
        (registry / f"{version}.joblib").write_bytes(b"model")


def left(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_run_folders_go_when_nothing_in_them_is_new(tmp_path, quick):
    for name, days in {"old": 91, "resumed": 1}.items():
        file = tmp_path / "runs" / name / "models/best.joblib"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"x")
        age(file, days)
        for folder in (file.parent, file.parent.parent):
            age(folder, 91)
    assert artifact_files.remove_run_folders(tmp_path, BEFORE, quick, is_dry_run=True).number == 1
    assert left(tmp_path / "runs") == {"old", "resumed"}
    assert artifact_files.remove_run_folders(tmp_path, BEFORE, quick, is_dry_run=False).number == 1
    assert left(tmp_path / "runs") == {"resumed"}


def test_the_newest_registered_models_stay(tmp_path, quick):
    registry = tmp_path / "registry"
    for day in range(1, 6):
        add_version(registry, f"v{day}", "registered", day)
    add_version(registry, "v9", "rejected", 9)
    (registry / "v2.keep").touch()
    removed = artifact_files.remove_models(tmp_path, 2, BEFORE, quick, is_dry_run=False)
    assert removed.number == 2
    assert left(registry) == {f"v{day}.{suffix}" for day in (2, 4, 5) for suffix in ("json", "joblib")} | {
        "v2.keep",
        "v9.json",
    }


def test_the_version_in_use_stays_at_any_age(tmp_path, quick):
    registry = tmp_path / "registry"
    add_version(registry, "used", "registered", 1)
    add_version(registry, "rejected", "rejected", 2)
    (registry / "interrupted.joblib").write_bytes(b"model without a document")
    (registry / ".used.json.0f.partial").write_bytes(b"of a killed worker")
    for path in registry.iterdir():
        age(path, 400)
    assert artifact_files.remove_models(tmp_path, 1, BEFORE, quick, is_dry_run=False).number == 3
    assert left(registry) == {"used.json", "used.joblib"}


def test_a_link_in_place_of_a_folder_is_not_followed(tmp_path, quick):
    outside = tmp_path / "logs/dag_id=a/attempt=1.log"
    outside.parent.mkdir(parents=True)
    outside.write_text("line")
    age(outside, 400)
    age(outside.parent, 400)
    artifacts = tmp_path / "artifacts"
    artifacts.mkdir()
    for name in ("runs", "registry"):
        (artifacts / name).symlink_to(tmp_path / "logs")
    assert artifact_files.remove_run_folders(artifacts, BEFORE, quick, is_dry_run=False).number == 0
    assert artifact_files.remove_models(artifacts, 1, BEFORE, quick, is_dry_run=False).number == 0
    (artifacts / "runs").unlink()
    (artifacts / "runs").mkdir()
    (artifacts / "runs/old").symlink_to(tmp_path / "logs")
    age(artifacts / "runs/old", 400)
    assert artifact_files.remove_run_folders(artifacts, BEFORE, quick, is_dry_run=False).number == 1
    assert outside.exists()


def test_nothing_that_a_task_puts_into_the_registry_stops_it(tmp_path, quick):
    (tmp_path / "registry").mkdir()
    os.mkfifo(tmp_path / "registry/pipe.json")
    (tmp_path / "registry/folder.json").mkdir()
    (tmp_path / "registry/nested.json").write_text("[" * 100_000)
    for path in (tmp_path / "registry").iterdir():
        age(path, 400)
    assert artifact_files.remove_models(tmp_path, 1, BEFORE, quick, is_dry_run=False).number == 3
    assert left(tmp_path / "registry") == set()


def test_xcom_objects_go_with_their_run(tmp_path, quick):
    for run in ("gone", "new", "there"):
        file = tmp_path / "sales" / run / "t/object"
        file.parent.mkdir(parents=True)
        file.write_text("1")
        if run != "new":
            for path in (file, file.parent, file.parent.parent):
                age(path, 2)
    removed = artifact_files.remove_xcoms(tmp_path, lambda _: {"there"}, NOW - DAY, quick, is_dry_run=False)
    assert removed.number == 1
    assert left(tmp_path / "sales") == {"new", "there"}


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("file:///opt/airflow/artifacts/xcom", "/opt/airflow/artifacts/xcom"),
        ("s3://connection@bucket/xcom", "None"),
        ("", "None"),
    ],
)
def test_only_a_folder_of_xcom_objects_is_cleaned(path, folder):
    environment = {"AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH": path}
    assert artifact_files.xcom_folder(environment) is None
    environment["AIRFLOW__CORE__XCOM_BACKEND"] = artifact_files.BACKEND
    assert str(artifact_files.xcom_folder(environment)) == folder
