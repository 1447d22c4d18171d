"""Where a run keeps its artifacts depends on its logical date and its data, not on the attempt."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from airflow_ha.ml.run_folder import plan_run

NIGHT = datetime(2026, 9, 1, 2, tzinfo=UTC)


def plan(**changes):
    asked = {
        "logical_date": NIGHT,
        "run_id": "scheduled__2026-09-01",
        "source": None,
        "label_column": "label",
        "artifacts_root": None,
    }
    return plan_run(**{**asked, **changes})


def test_the_same_logical_date_keeps_its_artifacts_in_the_same_place_whatever_the_run_is_called():
    assert plan(run_id="scheduled__1") == plan(run_id="manual__2")


def test_the_same_moment_in_another_time_zone_is_the_same_run():
    berlin = NIGHT.astimezone(timezone(timedelta(hours=2)))

    assert plan(logical_date=berlin) == plan()


def test_another_logical_date_or_source_or_label_keeps_its_artifacts_elsewhere():
    plans = [
        plan(),
        plan(logical_date=NIGHT + timedelta(microseconds=1)),
        plan(source="s3://warehouse@images/a.csv"),
        plan(source="s3://warehouse@images/a.csv", label_column="digit"),
    ]

    assert len({each["run_directory"] for each in plans}) == len(plans)


def test_a_run_without_a_logical_date_is_known_by_its_run_id():
    assert plan(logical_date=None, run_id="manual__1") == plan(logical_date=None, run_id="manual__1")
    assert plan(logical_date=None, run_id="manual__1") != plan(logical_date=None, run_id="manual__2")


def test_run_ids_that_differ_only_in_characters_unfit_for_a_file_name_stay_apart():
    assert plan(logical_date=None, run_id="a+b")["version"] != plan(logical_date=None, run_id="a:b")["version"]


def test_a_run_id_cannot_lead_out_of_the_artifacts_root():
    version = plan(logical_date=None, run_id="../../etc/passwd")["version"]

    assert "/" not in version


def test_the_defaults_are_the_bundled_digits_and_the_shared_volume():
    assert plan()["source"] == "digits"
    assert plan(source="  ")["source"] == "digits"
    assert plan()["run_directory"].startswith("file:///opt/airflow/artifacts/runs/2026-09-01T020000")
    assert plan()["registry_directory"] == "file:///opt/airflow/artifacts/registry"


def test_artifacts_go_to_an_object_store_by_configuration():
    configured = plan(artifacts_root="s3://warehouse@models/ml/")

    assert configured["run_directory"].startswith("s3://warehouse@models/ml/runs/")
    assert configured["registry_directory"] == "s3://warehouse@models/ml/registry"


def test_a_source_that_is_no_url_is_refused_with_an_example():
    with pytest.raises(ValueError, match=r"'/data/x.csv' is neither 'digits' nor a URL.*file:///data/"):
        plan(source="/data/x.csv")


def test_an_artifacts_root_that_is_no_url_is_refused_with_an_example():
    with pytest.raises(ValueError, match=r"'/mnt/x' is no URL such as file:///opt/airflow/artifacts"):
        plan(artifacts_root="/mnt/x")
