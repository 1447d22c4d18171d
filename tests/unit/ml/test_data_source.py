"""The data: bundled digits, or a CSV file in any object storage."""

import numpy as np
import pytest

from airflow_ha.ml import data_source
from airflow_ha.ml.validation import InvalidDataError


def test_the_bundled_digits_are_always_there_and_real():
    features, labels = data_source.read("digits", "label")

    assert data_source.exists("digits")
    assert features.shape == (1797, 64)
    assert sorted(set(labels)) == list("0123456789")


def test_a_csv_file_is_there_once_it_has_been_written(tmp_path):
    url = f"file://{tmp_path}/images.csv"
    assert not data_source.exists(url)

    (tmp_path / "images.csv").write_text("a,label\n1,x\n")

    assert data_source.exists(url)


def test_a_csv_file_is_read_with_its_label_column_wherever_it_stands(tmp_path):
    (tmp_path / "images.csv").write_text("a,digit,b\n1,x,2\n3,y,4.5\n")

    features, labels = data_source.read(f"file://{tmp_path}/images.csv", "digit")

    assert features.tolist() == [[1.0, 2.0], [3.0, 4.5]]
    assert labels.tolist() == ["x", "y"]


def test_a_missing_file_is_an_error_that_a_retry_may_cure(tmp_path):
    with pytest.raises(FileNotFoundError):
        data_source.read(f"file://{tmp_path}/images.csv", "label")


@pytest.mark.parametrize("text", ["", " ", "NA", "nan", "NULL", "None"])
def test_what_writers_put_for_a_missing_value_is_read_as_missing(text):
    features, labels = data_source.parse_csv(f"a,b,label\n1,{text},{text}\n".encode(), "label")

    assert np.isnan(features).tolist() == [[False, True]]
    assert labels.tolist() == [""]


def test_a_header_without_rows_is_a_table_of_no_samples():
    features, labels = data_source.parse_csv(b"a,b,label\n", "label")

    assert features.shape == (0, 2)
    assert labels.shape == (0,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,2\n", "no label column 'label'; it has a, b"),
        (b"", "no label column 'label'; it has no columns"),
        (b"label\nx\n", "no columns besides the label column 'label'"),
        (b"a,label\n1,x\n1,x,3\n", "line 3 has 3 values, the header has 2"),
        (b"a,label\nred,x\n", "line 2, column 'a': 'red' is not a number"),
        (b"\xff\xfe\x00", "no CSV text in UTF-8"),
    ],
)
def test_what_is_no_table_of_numbers_is_refused_with_the_place(content, message):
    with pytest.raises(InvalidDataError, match=message):
        data_source.parse_csv(content, "label")
