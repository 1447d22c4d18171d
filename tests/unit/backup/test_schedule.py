"""When a backup is due, and how the services read what the engines report."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import backup_database
import restore_check
from backup_database import (
    Backup,
    Backups,
    Database,
    Plan,
    Repository,
    Storage,
    checked,
    due,
    due_at,
    measured,
    parse_database,
    parse_repository,
    parse_storages,
    to_verify,
    verification_metrics,
)
from backup_files import by_label
from backup_service import EngineError, Service, existing_labels, exposition, reason, write_labels
from restore_check import at_least, lost, problems

DAY = 86400
PLAN = Plan(full=7 * DAY, incremental=DAY, verification=7 * DAY)
NOW = 100.0 * DAY


def made(kind: str, days_ago: float, timeline: int = 1) -> Backup:
    return Backup(f"{kind}{days_ago}", kind, int(NOW - days_ago * DAY), timeline, is_damaged=False, size=1)


@pytest.mark.parametrize(
    ("backups", "kind"),
    [
        ([], "full"),
        ([made("full", 7.1), made("incr", 0.1)], "full"),
        ([made("full", 6.9), made("incr", 1.1)], "incr"),
        ([made("full", 0.9)], None),
        ([made("full", 6.9), made("incr", 0.9)], None),
        ([made("incr", 0.1)], "full"),
    ],
)
def test_a_backup_is_due_by_the_age_of_the_newest_ones(backups, kind):
    assert due(backups, 1, NOW, PLAN) == kind


def test_a_new_timeline_gets_a_backup_at_once():
    assert due([made("full", 0.1, timeline=1)], 2, NOW, PLAN) == "incr"


@pytest.mark.parametrize(
    ("backups", "days_ago"),
    [
        ([], 0.5),
        ([made("full", 1)], 0.0),
        ([made("full", 2)], 1.0),
        ([made("full", 8), made("incr", 0.5)], 1.0),
    ],
)
def test_the_next_backup_is_due_at_a_time(backups, days_ago):
    assert due_at(backups, PLAN, started=NOW - 0.5 * DAY) == NOW - days_ago * DAY


def information(code: int = 0, message: str = "ok", backups: tuple[dict, ...] = ()) -> str:
    database = [{"system-id": 7}] if backups else []
    status = {"code": code, "message": message}
    return json.dumps([{"repo": [{"status": status}], "backup": list(backups), "db": database}])


ENTRY = {
    "label": "20261129-201659F",
    "type": "full",
    "timestamp": {"start": 1, "stop": 2},
    "archive": {"start": "0000000A0000000000000003"},
    "error": True,
    "info": {"size": 7, "repository": {"delta": 3}},
    "annotation": {
        "airflow-ha-figures": '{"revision": "a", "rows": {"dag": 2}}',
        "airflow-ha-verification": '{"at": 9.5, "problems": ["x"]}',
        "of-an-operator": "text",
    },
}


def test_backups_are_read_with_their_timeline_and_annotations():
    backup = Backup(
        "20261129-201659F",
        "full",
        stopped=2,
        timeline=10,
        is_damaged=True,
        size=7,
        stored=3,
        figures={"revision": "a", "rows": {"dag": 2}},
        verified=9.5,
        problems=("x",),
    )
    assert parse_repository(information(backups=(ENTRY,))) == Repository([backup], "", system_id="7")


@pytest.mark.parametrize(("system_id", "is_usable"), [("", True), ("7", True), ("8", False)])
def test_a_repository_of_another_database_is_not_used(system_id, is_usable):
    database = Database("7", is_replica=False, timeline=1, archive_lag=0.0)
    repository = checked(Repository([], "", system_id=system_id), database, had_backups=True)
    assert (repository.problem == "") == is_usable
    assert measured("s3", repository)['airflow_ha_backup_repository_up{repository="s3"}'] == float(is_usable)


@pytest.mark.parametrize(("had_backups", "is_usable"), [(False, True), (True, False)])
def test_an_empty_place_that_had_backups_is_not_used(had_backups, is_usable):
    database = Database("7", is_replica=False, timeline=1, archive_lag=0.0)
    repository = checked(Repository([], "", is_new=True), database, had_backups=had_backups)
    assert (repository.problem == "") == is_usable


CONFIGURATION = """[global]
repo1-path=/var/lib/backup/pgbackrest
repo2-path=/prefix/pgbackrest
repo2-s3-endpoint=s3.test:9000
repo2-s3-bucket=bucket
compress-type=zst
"""


def test_each_storage_has_a_configuration_without_the_others():
    local, s3 = parse_storages(CONFIGURATION, "folder")
    assert (local.name, local.place, s3.name, s3.place) == (
        *("local", "folder"),
        *("s3", "s3.test:9000/bucket/prefix/pgbackrest"),
    )
    assert "repo2" not in local.configuration
    assert "repo1" not in s3.configuration
    assert "compress-type" in local.configuration
    assert [each.name for each in parse_storages(CONFIGURATION.replace("repo1-path", "x"), "folder")] == ["s3"]


def test_an_engine_that_hangs_is_an_error():
    with pytest.raises(EngineError, match="did not end"):
        Service().run("sleep", "60", seconds=0.1)


def test_a_repository_without_backups_is_usable():
    assert parse_repository(information(1, "missing stanza path")) == Repository([], "", is_new=True)
    assert parse_repository(information(2, "no valid backups")) == Repository([], "")


def test_an_unreadable_repository_has_a_problem_of_one_line():
    text = information(99, "[FormatError] unable to load info file\nHINT: a").replace("load", "lo\x1cad")
    assert parse_repository(text).problem.startswith("[FormatError]")


def test_the_state_of_postgres_is_read():
    assert parse_database("7|f|3|12.5\n") == Database("7", is_replica=False, timeline=3, archive_lag=12.5)


def test_metrics_have_the_newest_backup_of_each_kind():
    metrics = measured("local", Repository([made("full", 2), made("incr", 1)], ""))
    name = "airflow_ha_backup_last_success_timestamp_seconds"
    assert metrics[f'{name}{{kind="full",repository="local"}}'] == NOW - 2 * DAY
    assert metrics[f'{name}{{kind="any",repository="local"}}'] == NOW - DAY
    assert exposition({"b": 1.0, "a": 0.5}) == "a 0.5\nb 1.0\n"


def test_labels_pass_from_the_database_to_the_files(tmp_path):
    path = tmp_path / "state/database.json"
    assert existing_labels("s3", path) == []
    write_labels({"local": ["a", "b"]}, path)
    assert existing_labels("local", path) == ["a", "b"]
    assert existing_labels("s3", path) == []
    path.write_text('{"labels": ["a"]}')
    assert existing_labels("local", path) == [], "as an earlier version wrote it"
    with pytest.raises(EngineError, match="cannot write"):
        write_labels({}, path / "below/a/file")


def test_snapshots_are_grouped_by_their_label():
    snapshots = [{"id": "1", "tags": ["a"]}, {"id": "2", "tags": ["a"]}, {"id": "3"}]
    assert by_label(json.dumps(snapshots)) == {"a": ["1", "2"]}
    assert by_label("") == {}


def test_an_s3_server_s_code_is_in_the_reason():
    message = "[ProtocolError] HTTP request failed with 404 (NOT FOUND):\n<Error><Code>NoSuchBucket</Code>"
    assert parse_repository(information(99, message)).problem.endswith("(NOT FOUND): NoSuchBucket")


def test_a_failed_engine_gives_its_error_and_no_hint_alone():
    output = (
        "P00   INFO: begin\nP00  ERROR: [082]: WAL segment was not archived\n  HINT: a\n  HINT: b\n HINT: c\n HINT: d\n"
    )
    assert reason(output).startswith("P00  ERROR: [082]: WAL segment was not archived | HINT: a")
    assert reason("one\n\ntwo\n") == "one | two"
    assert reason("") == "no output"


@pytest.fixture
def answers(monkeypatch, tmp_path) -> dict[str, str | EngineError]:
    """What each engine answers, by its first words, or by them and the storage; without an entry it succeeds."""
    password = tmp_path / "password"
    password.write_text("p")
    monkeypatch.setattr(backup_database, "PASSWORD", password)
    monkeypatch.setattr(backup_database, "write_labels", lambda _: None)
    monkeypatch.setattr(backup_database, "disk_problem", lambda _: "")
    configuration = tmp_path / "pgbackrest.conf"
    configuration.write_text(CONFIGURATION)
    monkeypatch.setenv("PGBACKREST_CONFIG", str(configuration))
    monkeypatch.setenv("LOCAL_STORAGE", "folder")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("FULL_DAYS", "7")
    monkeypatch.setenv("INCREMENTAL_HOURS", "24")
    monkeypatch.setenv("VERIFY_DAYS", "0")
    given: dict[str, str | EngineError] = {"psql": "7|f|1|3\n", "pgbackrest info": information()}

    def run(_: Service, *command: str, environment: dict[str, str], **_options: object) -> Any:
        if any(argument.endswith("figures.sql") for argument in command):
            return subprocess.CompletedProcess(command, 0, stdout='{"revision": "a", "rows": {}}')
        if "backup_places" in command[-1]:
            return subprocess.CompletedProcess(command, 0, stdout="")
        engine = " ".join(command[:2])
        storage = Path(environment.get("PGBACKREST_CONFIG", "")).stem
        answer = given.get(f"{engine} {storage}", given.get(engine, given.get(command[0], "")))
        if isinstance(answer, EngineError):
            raise answer
        return subprocess.CompletedProcess(command, 0, stdout=answer)

    monkeypatch.setattr(Service, "run", run)
    return given


def saved(stopped: float) -> str:
    return information(backups=({**ENTRY, "timestamp": {"start": 1, "stop": int(stopped)}, "error": False},))


def tick(backups: Backups) -> dict[str, float]:
    """Return the metrics, whose names have no prefix, after a tick."""
    with contextlib.suppress(EngineError):
        backups.tick()
    return {name.removeprefix("airflow_ha_backup_"): value for name, value in backups.service.metrics.items()}


@pytest.mark.parametrize("engine", ["psql", "pgbackrest info"])
def test_a_failing_engine_is_shown_and_the_backup_stays_due(answers, engine):
    stopped = time.time() - 60
    answers |= {"pgbackrest info": saved(stopped), "psql": "7|f|10|3\n"}
    backups = Backups(Service())
    assert tick(backups)["engine_up"] == 1.0
    answers[engine] = EngineError("it failed")
    metrics = tick(backups)
    assert (metrics["engine_up"], metrics['due_timestamp_seconds{repository="s3"}']) == (0.0, int(stopped) + DAY)
    assert ("archive_lag_seconds" in metrics) == (engine != "psql"), "no answer of before is current"
    assert metrics['repository_up{repository="s3"}'] == float(engine == "psql")


def test_an_unreadable_storage_leaves_its_next_backup_due(answers):
    stopped = time.time() - 60
    answers |= {"pgbackrest info": saved(stopped), "psql": "7|f|10|3\n"}
    backups = Backups(Service())
    tick(backups)
    answers["pgbackrest info s3"] = information(99, "the server does not answer")
    metrics = tick(backups)
    assert list(backups.service.problems) == ["s3"]
    assert backups.service.problems["s3"].endswith("the server does not answer")
    assert (metrics['repository_up{repository="s3"}'], metrics['repository_up{repository="local"}']) == (0.0, 1.0)
    assert (metrics["engine_up"], metrics['due_timestamp_seconds{repository="s3"}']) == (0.0, int(stopped) + DAY)


def test_a_failed_backup_is_shown_until_one_succeeds(answers):
    answers |= {"pgbackrest info": saved(time.time() - 2 * DAY), "psql": "7|f|10|3\n"}
    answers["pgbackrest backup s3"] = EngineError("no room")
    backups = Backups(Service())
    assert tick(backups)["engine_up"] == 0.0
    assert tick(backups)["engine_up"] == 0.0, "the pause before the next one is no success"
    assert backups.service.problems == {"s3": "no room"}
    assert (backups.retry_at["s3"] > 0, backups.retry_at["local"]) == (True, 0.0)
    backups.retry_at["s3"] = 0.0
    del answers["pgbackrest backup s3"]
    assert tick(backups)["engine_up"] == 1.0
    assert backups.service.problems == {}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, ""),
        ({"f_flag": os.ST_RDONLY | os.ST_NOSUID}, backup_database.READ_ONLY),
        ({"f_bavail": 4095}, backup_database.FULL),
        ({"f_favail": 0}, backup_database.FULL),
        ({"f_files": 0, "f_favail": 0}, ""),  # btrfs does not count them
    ],
)
def test_disk_without_room_for_a_segment_or_read_only_is_a_problem(monkeypatch, changes, problem):
    disk = {"f_flag": 0, "f_bavail": 4096, "f_frsize": 4096, "f_files": 9, "f_favail": 9}
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(**disk | changes))
    assert backup_database.disk_problem(Path("/")) == problem


def test_full_disk_of_the_local_storage_leaves_the_other(answers, monkeypatch):
    monkeypatch.setattr(backup_database, "disk_problem", lambda _: backup_database.FULL)
    answers |= {"pgbackrest info": saved(time.time() - 2 * DAY), "psql": "7|f|10|3\n"}
    backups = Backups(Service())
    made: list[str] = []
    monkeypatch.setattr(Backups, "make", lambda _, storage, *__: made.append(storage.name) or "label")
    metrics = tick(backups)
    assert made == ["s3"]
    assert (metrics['repository_up{repository="local"}'], list(backups.service.problems)) == (0.0, ["local"])


def test_labels_that_cannot_be_written_leave_the_backups(answers, monkeypatch):
    def fails(_) -> None:
        raise EngineError("cannot write")

    monkeypatch.setattr(backup_database, "write_labels", fails)
    answers |= {"pgbackrest info": saved(time.time() - 60), "psql": "7|f|10|3\n"}
    assert tick(Backups(Service()))["engine_up"] == 1.0


def test_a_replica_shows_no_state_of_the_engine(answers):
    answers["psql"] = "7|t|10|0\n"
    assert tick(Backups(Service())) == {"active": 0.0}


def verified(backup: Backup, days_ago: float = 0, problems: tuple[str, ...] = (), rows: int = 1) -> Backup:
    at = NOW - days_ago * DAY if days_ago else 0.0
    return replace(backup, figures={"rows": {"dag": rows} if rows else {}}, verified=at, problems=problems)


@pytest.mark.parametrize(
    ("backups", "is_due"),
    [
        ([], False),
        ([verified(made("full", 1))], True),
        ([verified(made("full", 1), rows=0)], False),
        ([made("full", 1)], True),
        ([verified(made("full", 6), 5), verified(made("incr", 1))], False),
        ([verified(made("full", 6), 5, ("damaged",)), verified(made("incr", 1))], False),
        ([verified(made("full", 9), 8), verified(made("incr", 1))], True),
    ],
)
def test_the_newest_backup_is_verified_by_the_last_ones_age(backups, is_due):
    assert to_verify(backups, NOW, PLAN) == (backups[-1] if is_due else None)
    assert to_verify(backups, NOW, replace(PLAN, verification=None)) is None


def test_a_failed_verification_leaves_the_age_of_the_last_good_one():
    backups = [verified(made("full", 9), 8), verified(made("incr", 1), 0.5, ("damaged",))]
    metrics = verification_metrics("s3", backups, PLAN)
    assert metrics['airflow_ha_backup_verification_failed{repository="s3"}'] == 1.0
    assert metrics['airflow_ha_backup_unverified_since_timestamp_seconds{repository="s3"}'] == NOW - 8 * DAY
    assert metrics['airflow_ha_backup_last_verified_restore_timestamp_seconds{repository="s3"}'] == NOW - 8 * DAY


def test_an_older_backup_that_is_verified_later_ends_no_failure():
    backups = [verified(made("full", 9), 0.1), verified(made("incr", 1), 0.5, ("damaged",))]
    metrics = verification_metrics("s3", backups, PLAN)
    assert metrics['airflow_ha_backup_verification_failed{repository="s3"}'] == 1.0


def test_without_a_verification_its_age_counts_from_the_oldest_backup():
    metrics = verification_metrics("s3", [made("full", 3), made("incr", 1)], PLAN)
    assert metrics['airflow_ha_backup_unverified_since_timestamp_seconds{repository="s3"}'] == NOW - 3 * DAY
    assert not any("last_verified_restore" in name for name in metrics)
    assert verification_metrics("s3", [made("full", 3)], replace(PLAN, verification=None)) == {}


def test_each_storage_is_verified_in_its_turn(answers, monkeypatch):
    monkeypatch.setenv("VERIFY_DAYS", "7")
    entry = {**ENTRY, "timestamp": {"start": 1, "stop": int(time.time())}, "annotation": {}}
    answers |= {"pgbackrest info": information(backups=(entry,)), "psql": "7|f|10|3\n"}
    verified: list[str] = []
    monkeypatch.setattr(
        restore_check, "check", lambda *arguments: verified.append(Path(arguments[-1]["PGBACKREST_CONFIG"]).stem)
    )
    monkeypatch.setattr(Backups, "record", lambda *_: None)
    backups = Backups(Service())
    for _ in range(3):
        tick(backups)
        assert backups.verification is not None
        backups.verification.join()
    assert sorted(verified) == ["local", "s3"]


def test_rows_that_come_or_go_during_a_backup_are_not_expected():
    before = {"revision": "a", "rows": {"log": 10, "dag": 5, "gone": 1}}
    after = {"revision": "b", "rows": {"log": 4, "dag": 6}}
    assert at_least(before, after) == {"revision": "b", "rows": {"log": 4, "dag": 5, "gone": 0}}


def test_damage_lost_rows_and_another_schema_are_problems():
    answers = {"postgres": "airflow\npostgres", "airflow": "airflow.i: bad"}
    restored = json.dumps({"revision": "b", "rows": {"dag": 1}})

    def ask(database: str, query: str) -> str:
        return (
            restored
            if query.endswith("figures.sql")
            else answers[database]
            if "damage" not in query or (database == "airflow")
            else ""
        )

    recorded = {"revision": "a", "rows": {"dag": 2, "log": 0}}
    found = list(problems(ask, recorded))
    assert found[0] == "airflow.i: bad"
    assert found[1:] == list(lost(recorded, json.loads(restored)))
    assert len(found) == 3
    assert list(lost({}, json.loads(restored))) == [], "a backup without figures"


def test_an_annotation_waits_for_a_backup_that_runs(monkeypatch):
    answers = [EngineError("pgbackrest failed (exit 50): ERROR: [050]: unable to acquire lock"), None]
    monkeypatch.setattr(backup_database, "LOCK_POLL_SECONDS", 0.0)
    backups = Backups.__new__(Backups)

    def engine(*_: object) -> None:
        if error := answers.pop(0):
            raise error

    monkeypatch.setattr(backups, "engine", engine)
    storage = Storage("s3", "bucket", "")
    backups.annotate(storage, "a", "b", {})
    assert answers == []
    answers.append(EngineError("pgbackrest failed (exit 55): unable to load info file"))
    with pytest.raises(EngineError, match="info file"):
        backups.annotate(storage, "a", "b", {})
