"""Commits with a NOTIFY and without are measured on a separate Postgres, alone and with a replica."""

from __future__ import annotations

from ops.bench import commit_rate
from ops.bench.targets import Measurement

OUTPUT = """\
alone silent 1 700.5
alone notify 1 650.0
replicated silent 1 500.0
replicated notify 1 480.0
alone silent 64 5000.0
alone notify 64 1200.0
replicated silent 64 4900.0
replicated notify 64 750.0
"""


def test_each_output_line_is_a_figure_of_its_variant():
    samples = commit_rate.parse_output(OUTPUT)
    assert set(samples) == set(commit_rate.VARIANTS.values())
    assert samples["alone, no NOTIFY"] == {"1 connection: commits/s": 700.5, "64 connections: commits/s": 5000.0}
    assert samples["replicated, NOTIFY"] == {"1 connection: commits/s": 480.0, "64 connections: commits/s": 750.0}


def test_every_round_adds_a_sample_to_every_variant(monkeypatch):
    ran: list[tuple[str, ...]] = []
    monkeypatch.setattr(commit_rate.settings_file, "read", lambda project: {"POSTGRES_IMAGE": "a-postgres"})
    monkeypatch.setattr(commit_rate.compose, "docker", lambda *arguments: ran.append(arguments) or OUTPUT)
    samples: dict = {}
    commit_rate.compare(Measurement(None, None, 2, samples, print))
    assert {name: len(taken) for name, taken in samples.items()} == dict.fromkeys(commit_rate.VARIANTS.values(), 2)
    assert all("a-postgres" in arguments and "--rm" in arguments for arguments in ran)
