"""The chart is used only if it is the file of its version."""

from __future__ import annotations

import pytest

from ops.errors import StackError
from ops.kubernetes import chart


def test_a_named_chart_with_another_sum_is_refused(tmp_path, monkeypatch):
    other = tmp_path / "airflow-1.22.0.tgz"
    other.write_bytes(b"changed")
    monkeypatch.setenv(chart.VARIABLE, str(other))
    with pytest.raises(StackError) as error:
        chart.archive()
    assert chart.SHA256[:12] in error.value.what


def test_a_named_chart_that_is_missing_is_refused_without_a_download(tmp_path, monkeypatch):
    monkeypatch.setenv(chart.VARIABLE, str(tmp_path / "nowhere.tgz"))
    monkeypatch.setattr(chart, "download", lambda _: pytest.fail("downloaded"))
    with pytest.raises(StackError):
        chart.archive()


def test_the_cached_chart_is_used_without_a_download(tmp_path, monkeypatch):
    monkeypatch.delenv(chart.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not chart.is_at_hand()
    path = chart.cached()
    path.parent.mkdir(parents=True)
    path.write_bytes(b"the chart")
    monkeypatch.setattr(chart, "SHA256", "3f5d1a")
    monkeypatch.setattr(chart, "download", lambda _: pytest.fail("downloaded"))
    with pytest.raises(StackError):
        chart.archive()
    assert chart.is_at_hand()
