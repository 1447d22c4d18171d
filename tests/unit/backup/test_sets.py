"""The sets of a repository, and the one that a restore starts from."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ops.backup.sets import BackupSet, Contents, choose, join, parse, parse_time
from ops.errors import StackError

NOW = datetime(2026, 11, 29, 20, 0, tzinfo=UTC)


def made(label: str, hours_ago: float) -> BackupSet:
    stopped = NOW - timedelta(hours=hours_ago)
    return BackupSet(label, "full", stopped - timedelta(minutes=1), stopped, size=10, stored=5)


SETS = [made("a", 48), made("b", 24)]


def entry(label: str, database: int) -> dict:
    return {
        "label": label,
        "type": "full",
        "timestamp": {"start": 100, "stop": 200},
        "archive": {"start": "0000000A0000000000000003"},
        "info": {"size": 10, "repository": {"size": 5}},
        "database": {"id": database},
    }


def information(code: int = 0, message: str = "ok") -> str:
    status = {"code": code, "message": message}
    databases = [{"id": 1, "system-id": 11}, {"id": 2, "system-id": 22}]
    stanza = {"repo": [{"status": status}], "db": databases, "backup": [entry("old", 1), entry("new", 2)]}
    return json.dumps([stanza])


def test_a_set_has_the_files_of_its_label():
    contents = parse(information(), json.dumps([{"id": "f", "tags": ["new"]}]))
    assert [(each.label, each.files) for each in contents.sets] == [("new", "f")]
    assert contents.system_id == "22", "the newest database only"


@pytest.mark.parametrize("message", ["[FormatError] a\nb", "[CryptoError] unable to flush"])
def test_another_passphrase_is_named_as_the_cause(message):
    with pytest.raises(StackError, match="another passphrase"):
        parse(information(99, message), "")


def test_an_unreachable_repository_is_refused_with_its_reason():
    with pytest.raises(StackError, match="Permission denied"):
        parse(information(99, "[PathOpenError] Permission denied\nHINT: a"), "")


def test_an_empty_repository_is_refused():
    with pytest.raises(StackError, match="cannot find a backup"):
        parse(information(1, "missing stanza path"), "")


@pytest.mark.parametrize(("hours_ago", "label"), [(47, "a"), (24, "b"), (1, "b")])
def test_a_time_starts_from_the_newest_set_before_it(hours_ago, label):
    assert choose(SETS, NOW - timedelta(hours=hours_ago), None, NOW).label == label


def test_without_a_time_the_newest_set_is_taken():
    assert choose(SETS, None, None, NOW).label == "b"
    assert choose(SETS, None, "a", NOW).label == "a"


@pytest.mark.parametrize(
    ("at", "label", "reason"),
    [
        (NOW - timedelta(hours=49), None, "oldest backup"),
        (NOW + timedelta(hours=1), None, "future"),
        (None, "c", "none of this id"),
    ],
)
def test_what_no_backup_reaches_is_refused(at, label, reason):
    with pytest.raises(StackError, match=reason):
        choose(SETS, at, label, NOW)


IN_S3 = [replace(each, storage="s3") for each in (made("c", 36), made("d", 12))]


def test_the_first_storage_that_has_a_set_is_taken():
    assert choose([*SETS, *IN_S3], None, None, NOW).label == "b"
    assert choose([*SETS, *IN_S3], None, None, NOW, "s3").label == "d"
    assert choose([*SETS, *IN_S3], None, "c", NOW).storage == "s3"
    assert choose([*IN_S3, *SETS[1:]], NOW - timedelta(hours=30), None, NOW).label == "c", "the other begins later"
    with pytest.raises(StackError, match="none of this id"):
        choose([*SETS, *IN_S3], None, "a", NOW, "s3")


def test_storages_are_listed_together_with_the_problems_of_one():
    contents = Contents((SETS[0],), "7", "17")
    problem = StackError("cannot reach the backups: refused")
    joined = join({"local": problem, "s3": contents})
    assert [(each.label, each.storage) for each in joined.sets] == [("a", "s3")]
    assert joined.problems == {"local": problem.what}
    other = join({"local": contents, "s3": Contents((SETS[1],), "8", "17")})
    assert [each.label for each in other.sets] == ["a"]
    assert "another database" in other.problems["s3"]
    with pytest.raises(StackError, match="refused"):
        join({"local": problem, "s3": problem})


@pytest.mark.parametrize(
    ("message", "setting"),
    [
        ("<Code>NoSuchBucket</Code>", "BACKUP_S3_BUCKET"),
        ("unable to verify certificate presented by", "backup_s3_ca.pem"),
        ("unable to get address for 's3.test'", "BACKUP_S3_ENDPOINT"),
    ],
)
def test_a_wrong_setting_of_s3_is_named(message, setting):
    with pytest.raises(StackError) as error:
        parse(information(99, f"[CryptoError] {message}"), "")
    assert setting in error.value.where


def test_a_time_without_a_zone_is_in_utc():
    assert parse_time("2026-11-29T20:00:00") == parse_time("2026-11-29 21:00:00+01:00") == NOW
    with pytest.raises(StackError, match="not a time"):
        parse_time("yesterday")
