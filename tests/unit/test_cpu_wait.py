"""A thread can tell how long it waited for a CPU."""

from __future__ import annotations

from airflow_ha import cpu_wait


def test_a_thread_knows_how_long_it_waited_for_a_cpu(monkeypatch, tmp_path):
    assert cpu_wait.cpu_wait() >= 0
    schedstat = tmp_path / "schedstat"
    monkeypatch.setattr(cpu_wait, "SCHEDSTAT", schedstat)
    assert cpu_wait.cpu_wait() == 0.0
    schedstat.write_text("31000000 2500000000 17\n")
    assert cpu_wait.cpu_wait() == 2.5
