"""Unfit data fails, and the error names the figures."""

import numpy as np
import pytest

from airflow_ha.ml.artifacts import write_arrays
from airflow_ha.ml.download import download
from airflow_ha.ml.validation import InvalidDataError, check, validate


def table(samples, features=9, nulls=0, classes=2):
    values = np.zeros((samples, features))
    values.flat[:nulls] = np.nan
    return values, np.array([str(row % classes) for row in range(samples)], dtype=str)


def test_exactly_1000_samples_are_enough():
    assert check(*table(1_000)) == {"samples": 1_000, "null_share": 0.0, "classes": 2}


def test_999_samples_are_too_few():
    with pytest.raises(InvalidDataError, match=r"999 samples.*1,000"):
        check(*table(999))


def test_exactly_5_percent_nulls_pass():
    assert check(*table(1_000, nulls=500))["null_share"] == 0.05


def test_more_than_5_percent_nulls_fail_with_the_figures():
    with pytest.raises(InvalidDataError, match=r"5\.01% nulls \(501 of 10,000 values\).* 5%"):
        check(*table(1_000, nulls=501))


def test_infinite_values_and_missing_labels_count_as_nulls():
    features, labels = table(1_000)
    features[:100] = np.inf
    labels[100:200] = ""

    with pytest.raises(InvalidDataError, match=r"10\.00% nulls \(1,000 of 10,000 values\)"):
        check(features, labels)


def test_one_error_names_all_faults():
    with pytest.raises(InvalidDataError, match=r"10 samples.*90\.00% nulls.*1 classes"):
        check(*table(10, nulls=90, classes=1))


def test_empty_data_is_refused():
    with pytest.raises(InvalidDataError, match=r"0 samples.*0 classes.* 2"):
        check(*table(0))


def test_error_counts_a_class_with_too_few_samples():
    features, labels = table(1_000)
    labels[:4] = "secret"

    with pytest.raises(InvalidDataError, match=r"3 classes has 4 samples.* 5") as refused:
        check(features, labels)
    assert "secret" not in str(refused.value)


def test_valid_data_is_checked_once(tmp_path):
    download("digits", "label", (), tmp_path)

    assert validate(tmp_path) == {"samples": 1797, "null_share": 0.0, "classes": 10, "reused": False}
    assert validate(tmp_path)["reused"] is True


def test_invalid_download_is_deleted_and_the_source_is_reread(tmp_path):
    run_directory, data = tmp_path / "run", tmp_path / "data.csv"
    rows = [f"{row},{row % 2}" for row in range(1_000)]
    data.write_text("\n".join(["a,label", *rows[:10]]))
    download(f"file://{data}", "label", [f"file://{tmp_path}"], run_directory)
    with pytest.raises(InvalidDataError, match="10 samples"):
        validate(run_directory)

    data.write_text("\n".join(["a,label", *rows]))

    assert download(f"file://{data}", "label", [f"file://{tmp_path}"], run_directory)["reused"] is False
    assert validate(run_directory)["samples"] == 1_000


def test_validation_without_a_download_fails(tmp_path):
    with pytest.raises(FileNotFoundError):
        validate(tmp_path)


def test_invalid_data_is_never_recorded_as_valid(tmp_path):
    features, labels = table(999)
    for _ in range(2):
        write_arrays(tmp_path / "dataset.npz", features=features, labels=labels)
        with pytest.raises(InvalidDataError):
            validate(tmp_path)
