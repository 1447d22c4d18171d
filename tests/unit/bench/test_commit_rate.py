"""Commits with a NOTIFY and without are measured on a Postgres of its own, alone and with a replica."""

from __future__ import annotations

from ops.bench import commit_rate

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


def test_each_line_is_a_figure_of_its_side():
    found = commit_rate.samples(OUTPUT)
    assert set(found) == set(commit_rate.SIDES.values())
    assert found["alone, no NOTIFY"] == {"1 connection: commits/s": 700.5, "64 connections: commits/s": 5000.0}
    assert found["replicated, NOTIFY"] == {"1 connection: commits/s": 480.0, "64 connections: commits/s": 750.0}


def test_every_round_adds_a_sample_to_every_side(monkeypatch):
    ran: list[tuple[str, ...]] = []
    monkeypatch.setattr(commit_rate.settings_file, "read", lambda project: {"POSTGRES_IMAGE": "a-postgres"})
    monkeypatch.setattr(commit_rate.compose, "docker", lambda *arguments: ran.append(arguments) or OUTPUT)
    taken: dict = {}
    commit_rate.compare(None, None, 2, taken, print)
    assert {name: len(samples) for name, samples in taken.items()} == dict.fromkeys(commit_rate.SIDES.values(), 2)
    assert all("a-postgres" in arguments and "--rm" in arguments for arguments in ran)
