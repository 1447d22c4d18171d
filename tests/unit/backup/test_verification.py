"""`backup verify`: the order of its checks, what ends it, and that nothing of the throw-away stack stays."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from ops import compose, deployment, preflight, restored, settings_file
from ops.backup import repository, restoration, restored_database, verification
from ops.backup.repository import Repository
from ops.backup.sets import BackupSet, Verification, parse
from ops.commands import backup
from ops.errors import StackError
from ops.project import PIPELINE, ROOT, Project
from tests.unit.backup.test_sets import information

NOW = datetime(2026, 11, 29, 20, 0, tzinfo=UTC)
SOURCE = Repository("volume", "image", "configuration", "passphrase")
CHOSEN = BackupSet("20261129-201659F", "full", NOW, NOW, size=1, stored=1, files="snapshot", rows={"dag": 2})
GOOD = {
    "revision": "a",
    "rows": {"dag": 2},
    "encrypted": 0,
    "problems": [],
    "checks": [{"check": name, "seconds": 0.1, "problems": []} for name in ("schema", "encrypted values")],
}


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(ROOT, tmp_path / "state")


@pytest.fixture
def planned(project, monkeypatch) -> restoration.Restoration:
    monkeypatch.setattr(compose, "docker", lambda *_: "")
    monkeypatch.setattr(preflight, "check_memory", lambda *_: None)
    monkeypatch.setattr(preflight, "check_disk", lambda *_: None)
    saved = settings_file.defaults(project) | {
        "COMPOSE_PROFILES": "data-ha,observability,backup",
        "BACKUP_FOLDER": "/b",
    }
    return verification.prepare(project, saved, SOURCE, CHOSEN, lambda _: None)


def test_the_throw_away_stack_is_small_private_and_makes_no_backups(planned, project):
    settings = planned.settings
    assert (planned.name, settings["COMPOSE_PROFILES"]) == ("airflow-ha-verify", "data")
    assert settings["BIND_ADDRESS"] == "127.0.0.1"
    assert settings["AIRFLOW_PORT"] != settings_file.defaults(project)["AIRFLOW_PORT"]
    assert {settings[f"{name}_REPLICAS"] for name in ("WORKER", "SCHEDULER", "API_SERVER", "EXECUTION_API")} == {"1"}
    assert "BACKUP_FOLDER" not in settings
    assert planned.is_new_stack, "so it gets no receiver of alerts"
    assert planned.project.secrets != project.secrets


@pytest.fixture
def steps(monkeypatch, planned) -> list[str]:
    """The steps of a verification, without Docker."""
    taken: list[str] = []
    run = SimpleNamespace(state="success")
    api = SimpleNamespace(
        has_dag=lambda _: True,
        trigger=lambda dag: taken.append(dag) or run,
        wait_for=lambda run, _report, timeout: run,
    )
    read = SimpleNamespace(returncode=0)
    monkeypatch.setattr(restoration, "restore_database", lambda _: taken.append("restore"))
    monkeypatch.setattr(repository, "run", lambda *_: taken.append("read files") or read)
    monkeypatch.setattr(restoration, "restore_files", lambda _: taken.append("files"))
    monkeypatch.setattr(verification.saved_files, "renew_token_secrets", lambda _: None)
    monkeypatch.setattr(deployment, "configure", lambda *_: None)
    monkeypatch.setattr(deployment, "start", lambda *_: None)
    monkeypatch.setattr(restored_database, "in_volume", lambda *_: "")
    monkeypatch.setattr(restoration, "set_passwords", lambda _: None)
    monkeypatch.setattr(restored, "hold", lambda _, keep: taken.append(f"hold all but {keep}") or {"held": []})
    monkeypatch.setattr(restored, "check", lambda _: taken.append("check") or GOOD)
    monkeypatch.setattr(verification, "connect", lambda *_: api)
    return taken


def test_dags_are_held_and_the_database_checked_before_airflow_runs(planned, steps):
    results = verification.verify(planned, {})
    assert steps == ["restore", "read files", "files", "hold all but ()", "check", "canary_dag", PIPELINE]
    assert [each.problems for each in results] == [()] * 8
    found = {each.check: each.found for each in results}
    assert found["encrypted values"].startswith("none")
    assert found["rows"] == "2 in 1 tables"


def test_lost_rows_and_damage_are_problems_and_the_rest_still_runs(planned, steps, monkeypatch):
    damaged = {**GOOD, "rows": {"dag": 1}, "checks": [{"check": "schema", "seconds": 0, "problems": ["bad"]}]}
    monkeypatch.setattr(restored, "check", lambda _: damaged)
    results = verification.verify(planned, {})
    problems = {each.check: each.problems for each in results if each.problems}
    assert problems == {"schema": ("bad",), "rows": ("dag has 1 rows, it had 2 at the backup",)}
    assert steps[-1] == PIPELINE


def test_a_failed_step_is_the_last_result(planned, steps, monkeypatch):
    def fails(*_arguments) -> None:
        raise StackError("cannot start")

    monkeypatch.setattr(deployment, "start", fails)
    results = verification.verify(planned, {})
    assert results[-1].problems == ("cannot start",)
    assert len(results) == 3


@pytest.mark.parametrize("ending", [StackError("cannot"), KeyboardInterrupt(), None])
def test_the_throw_away_stack_is_removed_whatever_happened(planned, monkeypatch, ending):
    removed: list[tuple[str, ...]] = []
    answers = {"ps": "c1 c2", "network": "n1", "volume": "v1"}
    monkeypatch.setattr(compose, "docker", lambda *words: removed.append(words) or answers.get(words[0], ""))
    planned.project.secrets.mkdir(parents=True)
    with contextlib.suppress(StackError, KeyboardInterrupt), verification.removed_afterwards(planned):
        if ending:
            raise ending
    assert ("rm", "--force", "--volumes", "c1", "c2") in removed
    assert ("volume", "rm", "v1") in removed
    assert not planned.project.state.exists()
    label = "--filter=label=com.docker.compose.project=airflow-ha-verify"
    assert {words[-1] for words in removed if "--quiet" in words} == {label, "--filter=volume=v1"}


def test_a_verification_is_read_from_the_annotation_and_listed():
    annotation = {
        "airflow-ha-figures": '{"revision": "a", "rows": {"dag": 2}}',
        "airflow-ha-verification": '{"at": 86400.0, "problems": []}',
    }
    text = information().replace('"label": "new"', f'"annotation": {json.dumps(annotation)}, "label": "new"')
    (each,) = parse(text, "").sets
    assert each.rows == {"dag": 2}
    assert each.verification == Verification(datetime(1970, 1, 2, tzinfo=UTC))
    assert backup.verified(each) == "1970-01-02 00:00"
    assert "failed" in backup.verified(BackupSet("a", "full", NOW, NOW, 1, 1, verification=Verification(NOW, ("x",))))
