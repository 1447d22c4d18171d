"""Reading bundled digits, or a CSV file below an allowed URL; nothing else is read or quoted."""

import socket
import traceback

import numpy as np
import pytest

from airflow_ha.ml import data_source
from airflow_ha.ml.validation import InvalidDataError

SECRET = "redis://:pass-word@redis:6379/0"


@pytest.fixture
def inbox(tmp_path):
    """An allowed folder, beside a file with a secret."""
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    (tmp_path / "inbox").mkdir()
    return tmp_path / "inbox"


def test_bundled_digits_are_always_available():
    features, labels = data_source.read("digits", "label", [])

    assert data_source.exists("digits", [])
    assert features.shape == (1797, 64)
    assert sorted(set(labels)) == list("0123456789")


def test_csv_file_exists_after_it_is_written(inbox):
    url, roots = f"file://{inbox}/images.csv", [f"file://{inbox}"]
    assert not data_source.exists(url, roots)

    (inbox / "images.csv").write_text("a,label\n1,x\n")

    assert data_source.exists(url, roots)


def test_label_column_may_be_at_any_position(inbox):
    (inbox / "images.csv").write_text("a,digit,b\n1,x,2\n3,y,4.5\n")

    features, labels = data_source.read(f"file://{inbox}/images.csv", "digit", [f"file://{inbox}/"])

    assert features.tolist() == [[1.0, 2.0], [3.0, 4.5]]
    assert labels.tolist() == ["x", "y"]


def test_missing_file_raises_a_retryable_error(inbox):
    with pytest.raises(FileNotFoundError):
        data_source.read(f"file://{inbox}/images.csv", "label", [f"file://{inbox}"])


@pytest.mark.parametrize(
    ("source", "root"),
    [
        ("s3://warehouse@images/2026/a.csv", "s3://warehouse@images/"),
        ("s3://warehouse@images/2026/a.csv", "s3://warehouse@images"),
        ("s3://warehouse@images/a.csv", "s3://warehouse@images/a.csv"),
        ("s3://any@bucket/a b=1.csv", "s3://"),
        ("file:///data/a.csv", "file:///"),
    ],
)
def test_source_below_a_root_is_allowed(source, root):
    assert data_source.split(source, ["gs://other/", root])[0] == root


@pytest.mark.parametrize(
    "source",
    [
        "s3://images/a.csv",
        "s3://other@images/a.csv",
        "s3://warehouse@images-of-others/a.csv",
        "s3://warehouse@images/../secret/a.csv",
        "s3://warehouse@images//a.csv",
        "s3://warehouse@images/./a.csv",
        "s3://warehouse@images/a.csv::file:///run/secrets/jwt_users_key",
        "s3://warehouse@images/a\t.csv",
        "S3://warehouse@images/a.csv",
        "file:///run/secrets/jwt_users_key",
        "local:///run/secrets/jwt_users_key",
        "file:/run/secrets/jwt_users_key",
        "/run/secrets/jwt_users_key",
        "simplecache::file:///run/secrets/jwt_users_key",
        "",
    ],
)
def test_source_outside_the_roots_is_refused(source):
    for use in (data_source.exists, lambda source, roots: data_source.read(source, "label", roots)):
        with pytest.raises(data_source.RefusedSourceError):
            use(source, ["s3://warehouse@images/"])


@pytest.mark.parametrize(
    "path",
    ["../secret", "%2e%2e/secret", "./../secret", "link.csv", "folder-link/secret", "inner/../../secret", "pipe.csv"],
)
def test_path_that_leads_out_of_a_local_root_is_refused(inbox, path):
    (inbox / "link.csv").symlink_to("../secret")
    (inbox / "folder-link").symlink_to("..")
    (inbox / "%2e%2e").symlink_to("..")
    (inbox / "pipe.csv").symlink_to("/dev/stdin")

    for use in (data_source.exists, lambda source, roots: data_source.read(source, "label", roots)):
        with pytest.raises(data_source.RefusedSourceError) as refused:
            use(f"file://{inbox}/{path}", [f"file://{inbox}"])
        assert "pass-word" not in str(refused.value)


def test_default_source_that_is_a_link_is_refused(inbox):
    (inbox / "current.csv").symlink_to("../secret")
    url = f"file://{inbox}/current.csv"
    with pytest.raises(data_source.RefusedSourceError):
        data_source.exists(url, [url])


def test_local_root_with_a_host_is_refused():
    with pytest.raises(data_source.RefusedSourceError, match="file:///"):
        data_source.exists("file://run/secrets/jwt_users_key", ["file://run/"])


@pytest.mark.parametrize("scheme", ["http", "https", "c@http"])
def test_inner_service_is_never_connected_to(scheme):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        url = f"{scheme}://127.0.0.1:{server.getsockname()[1]}"
        for use in (data_source.exists, lambda source, roots: data_source.read(source, "label", roots)):
            with pytest.raises(data_source.RefusedSourceError):
                use(f"{url}/x.csv", [url])
        with pytest.raises(BlockingIOError):
            server.accept()


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
        (b"pass-word,b\n1,2\n", "none of its 2 columns.*'label'"),
        (b"", "none of its 0 columns.*'label'"),
        (b"label\npass-word\n", "no columns besides.*'label'"),
        (b"a,label\n1,x\npass-word,x,3\n", "line 3 has 3 values.* 2"),
        (b"pass-word,label,b\n1,x,pass-word\n", "line 2, column 3 is not a number"),
        (b"pass-word\xff", "UTF-8"),
    ],
)
def test_invalid_csv_is_refused_by_position_and_not_quoted(content, message):
    with pytest.raises(InvalidDataError, match=message) as refused:
        data_source.parse_csv(content, "label")
    assert "pass-word" not in "".join(traceback.format_exception(refused.value))


def test_cell_over_the_limit_of_csv_is_refused():
    with pytest.raises(InvalidDataError, match="CSV"):
        data_source.parse_csv(f"label,a\nx,{'1' * 200_000}\n".encode(), "label")
