"""A thread's CPU wait comes from schedstat."""

from __future__ import annotations

import pytest

from airflow_ha import cpu_wait


@pytest.mark.parametrize(("text", "seconds"), [("7000000000 1500000000 40\n", 1.5), ("", 0.0), (None, 0.0)])
def test_cpu_wait_is_read_from_schedstat_or_0(monkeypatch, tmp_path, text, seconds):
    schedstat = tmp_path / "schedstat"
    if text is not None:
        schedstat.write_text(text)
    monkeypatch.setattr(cpu_wait, "SCHEDSTAT", schedstat)
    assert cpu_wait.cpu_wait() == seconds
