"""A run's artifact folder depends on its logical date and its data, not on the try."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from airflow_ha.ml.run_folder import plan_run

NIGHT = datetime(2026, 9, 1, 2, tzinfo=UTC)


def plan(**changes):
    arguments = {
        "logical_date": NIGHT,
        "run_id": "scheduled__2026-09-01",
        "source": None,
        "label_column": "label",
        "artifacts_root": None,
    }
    return plan_run(**{**arguments, **changes})


def test_same_logical_date_gives_the_same_folder():
    assert plan(run_id="scheduled__1") == plan(run_id="manual__2")


def test_other_time_zone_gives_the_same_folder():
    berlin = NIGHT.astimezone(timezone(timedelta(hours=2)))

    assert plan(logical_date=berlin) == plan()


def test_other_date_source_or_label_gives_another_folder():
    plans = [
        plan(),
        plan(logical_date=NIGHT + timedelta(microseconds=1)),
        plan(source="s3://warehouse@images/a.csv"),
        plan(source="s3://warehouse@images/a.csv", label_column="digit"),
    ]

    assert len({each["run_directory"] for each in plans}) == len(plans)


def test_run_id_replaces_a_missing_logical_date():
    assert plan(logical_date=None, run_id="manual__1") == plan(logical_date=None, run_id="manual__1")
    assert plan(logical_date=None, run_id="manual__1") != plan(logical_date=None, run_id="manual__2")


def test_run_ids_with_other_special_characters_stay_distinct():
    assert plan(logical_date=None, run_id="a+b")["version"] != plan(logical_date=None, run_id="a:b")["version"]


def test_run_id_cannot_escape_the_artifacts_root():
    version = plan(logical_date=None, run_id="../../etc/passwd")["version"]

    assert "/" not in version


def test_defaults_are_the_bundled_digits_and_the_shared_volume():
    assert plan()["source"] == "digits"
    assert plan(source="  ")["source"] == "digits"
    assert plan()["run_directory"].startswith("file:///opt/airflow/artifacts/runs/2026-09-01T020000")
    assert plan()["registry_directory"] == "file:///opt/airflow/artifacts/registry"


def test_artifacts_root_can_be_an_object_store():
    configured = plan(artifacts_root="s3://warehouse@models/ml/")

    assert configured["run_directory"].startswith("s3://warehouse@models/ml/runs/")
    assert configured["registry_directory"] == "s3://warehouse@models/ml/registry"


def test_root_that_is_not_a_url_is_refused_with_an_example():
    with pytest.raises(ValueError, match=r"'/mnt/x'.*file:///opt/airflow/artifacts"):
        plan(artifacts_root="/mnt/x")
