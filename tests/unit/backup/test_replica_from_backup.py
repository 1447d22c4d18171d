"""The backup that a replica is built from."""

from __future__ import annotations

import pytest

from replica_from_backup import NoBackupError, Source, newest


def backup(label: str, timeline: int, repository: int = 1, database: int = 2) -> dict:
    start = f"{timeline:08X}0000000000000003"
    return {"label": label, "archive": {"start": start}, "database": {"repo-key": repository, "id": database}}


def information(*backups: dict) -> list[dict]:
    databases = [{"repo-key": key, "id": number, "system-id": 10 + number} for key in (1, 2) for number in (1, 2)]
    return [{"db": databases, "backup": list(backups)}]


def test_the_newest_backup_of_the_timeline_is_taken_from_the_first_storage():
    known = information(backup("a", 1), backup("b", 3), backup("c", 3), backup("d", 3, repository=2))
    assert newest(known, "12", 3) == Source(1, "c")
    assert newest(information(backup("d", 3, repository=2)), "12", 3) == Source(2, "d")


@pytest.mark.parametrize(
    "known", [[], information(), information(backup("a", 2)), information(backup("a", 3, database=1))]
)
def test_an_older_timeline_or_another_database_is_not_used(known):
    with pytest.raises(NoBackupError, match="timeline 3"):
        newest(known, "12", 3)
