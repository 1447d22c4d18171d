"""Reading bundled digits, or a CSV file from any object storage."""

import numpy as np
import pytest

from airflow_ha.ml import data_source
from airflow_ha.ml.validation import InvalidDataError


def test_bundled_digits_are_always_available():
    features, labels = data_source.read("digits", "label")

    assert data_source.exists("digits")
    assert features.shape == (1797, 64)
    assert sorted(set(labels)) == list("0123456789")


def test_csv_file_exists_after_it_is_written(tmp_path):
    url = f"file://{tmp_path}/images.csv"
    assert not data_source.exists(url)

    (tmp_path / "images.csv").write_text("a,label\n1,x\n")

    assert data_source.exists(url)


def test_label_column_may_be_at_any_position(tmp_path):
    (tmp_path / "images.csv").write_text("a,digit,b\n1,x,2\n3,y,4.5\n")

    features, labels = data_source.read(f"file://{tmp_path}/images.csv", "digit")

    assert features.tolist() == [[1.0, 2.0], [3.0, 4.5]]
    assert labels.tolist() == ["x", "y"]


def test_missing_file_raises_a_retryable_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        data_source.read(f"file://{tmp_path}/images.csv", "label")


@pytest.mark.parametrize("text", ["", " ", "NA", "nan", "NULL", "None"])
def test_null_texts_are_read_as_missing_values(text):
    features, labels = data_source.parse_csv(f"a,b,label\n1,{text},{text}\n".encode(), "label")

    assert np.isnan(features).tolist() == [[False, True]]
    assert labels.tolist() == [""]


def test_header_without_rows_gives_no_samples():
    features, labels = data_source.parse_csv(b"a,b,label\n", "label")

    assert features.shape == (0, 2)
    assert labels.shape == (0,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,2\n", "label column 'label'.* a, b"),
        (b"", "label column 'label'.* no columns"),
        (b"label\nx\n", "no columns besides.*'label'"),
        (b"a,label\n1,x\n1,x,3\n", "line 3 has 3 values.* 2"),
        (b"a,label\nred,x\n", "line 2, column 'a': 'red'"),
        (b"\xff\xfe\x00", "UTF-8"),
    ],
)
def test_invalid_csv_is_refused_with_line_and_column(content, message):
    with pytest.raises(InvalidDataError, match=message):
        data_source.parse_csv(content, "label")
