"""The steps of a restore that need no container: targets, secrets, files, a new stack, and the way back."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import tarfile
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from ops import backup_config, compose, data_tier, deployment, secrets_store, settings_file
from ops.backup import new_stack, replaced, restoration, restored_database, saved_files
from ops.backup.repository import Repository
from ops.backup.restoration import Restoration
from ops.backup.sets import BackupSet
from ops.errors import StackError
from ops.project import ROOT, Project

NOW = datetime(2026, 11, 29, 20, 0, tzinfo=UTC)
SOURCE = Repository("volume", "image", "configuration", "passphrase")
CHOSEN = BackupSet("20261129-201659F", "full", NOW, NOW, size=1, stored=1, files="snapshot")


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(ROOT, tmp_path / "state")


@pytest.fixture
def saved(monkeypatch):
    """The files of the snapshot, by path."""
    files: dict[str, bytes] = {}
    monkeypatch.setattr(saved_files, "saved", lambda _source, _snapshot, path: files.get(path, b""))
    return files


def test_a_target_always_names_the_set_to_start_from():
    at = datetime(2026, 11, 29, 20, 15, tzinfo=UTC)
    options = restored_database.target_options
    assert options(CHOSEN, None, is_exact=False) == ["--set=20261129-201659F"]
    assert options(CHOSEN, None, is_exact=True)[1:] == ["--type=immediate", "--target-action=promote"]
    assert options(CHOSEN, at, is_exact=False)[1:3] == ["--type=time", "--target=2026-11-29 20:15:00.000000+00"]


def test_only_missing_secrets_are_restored(project, saved):
    saved[saved_files.SECRETS] = json.dumps({"postgres_airflow_password": "old", "smtp_password": "mail"}).encode()
    secrets_store.generate(project)
    before = secrets_store.read(project, "postgres_airflow_password")
    assert saved_files.restore_secrets(project, SOURCE, "s") == ["smtp_password"]
    assert secrets_store.read(project, "postgres_airflow_password") == before
    assert (project.secrets / "smtp_password").stat().st_mode & 0o777 == 0o600


def test_a_new_stack_gets_no_receiver_of_alerts(project, saved):
    saved[saved_files.SECRETS] = json.dumps({"slack_webhook_url": "https://a.example"}).encode()
    assert saved_files.restore_secrets(project, SOURCE, "s", left_out=("slack_webhook_url",)) == []


def test_an_older_fernet_key_is_kept_beside_the_current_one(project, saved):
    saved[saved_files.SECRETS] = json.dumps({"fernet_key": "older"}).encode()
    secrets_store.generate(project)
    current = secrets_store.read(project, "fernet_key")
    assert saved_files.restore_secrets(project, SOURCE, "s") == ["fernet_key"]
    assert secrets_store.read(project, "fernet_key") == f"{current},older"
    assert saved_files.restore_secrets(project, SOURCE, "s") == [], "a second restore changes nothing"


def test_an_override_file_is_restored_only_where_none_is(project, saved):
    saved[f"{saved_files.STATE}/compose.override.yaml"] = b"services: {}\n"
    project.state.mkdir()
    assert saved_files.restore_override(project, SOURCE, "s") == "compose.override.yaml"
    assert saved_files.restore_override(project, SOURCE, "s") == "", "the one that exists stays"


def test_keys_of_tokens_are_new_and_others_stay(project):
    secrets_store.generate(project)
    before = {name: secrets_store.read(project, name) for name in secrets_store.GENERATORS}
    saved_files.renew_token_secrets(project)
    changed = {name for name, text in before.items() if secrets_store.read(project, name) != text}
    assert changed == {"jwt_tasks_key", "jwt_users_key", "api_secret_key"}


def test_only_missing_files_of_a_folder_are_restored(project, saved, tmp_path):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as files:
        for name in ("a.py", "deep/b.py"):
            member = tarfile.TarInfo(f"/set/dags/{name}")
            member.size, member.mode = 3, 0o644
            files.addfile(member, io.BytesIO(b"old"))
    saved["/set/dags"] = archive.getvalue()
    (tmp_path / "a.py").write_text("new")
    assert saved_files.restore_folder(SOURCE, "s", "/set/dags", tmp_path) == 1
    assert ((tmp_path / "a.py").read_text(), (tmp_path / "deep/b.py").read_text()) == ("new", "old")


def test_saved_settings_lack_those_of_a_machine(saved):
    saved["/set/state/.env"] = b"WORKER_REPLICAS=3\nSECRETS_DIR=/a\nAIRFLOW_IMAGE=b\n"
    assert saved_files.saved_settings(SOURCE, "s") == {"WORKER_REPLICAS": "3"}


def test_a_new_stack_has_ports_and_folders_of_its_own(project, monkeypatch):
    monkeypatch.setattr(compose, "docker", lambda *_: "")
    settings = settings_file.defaults(project) | {"COMPOSE_PROFILES": "data,backup", "BACKUP_KEEP": "2"}
    new, own = new_stack.prepare(project, settings, "past")
    assert new.state == project.state / "stacks/past"
    assert (own["COMPOSE_PROJECT_NAME"], own["COMPOSE_PROFILES"]) == ("past", "data")
    assert own["AIRFLOW_PORT"] != settings["AIRFLOW_PORT"]
    assert "BACKUP_KEEP" not in own
    with pytest.raises(StackError, match="cannot name"):
        new_stack.prepare(project, settings, "Not A Name")


@pytest.fixture
def steps(monkeypatch, project) -> list[str]:
    """The steps of a change, without Docker."""
    taken: list[str] = []
    running = {"postgres": [compose.Instance("a", "running", "healthy", 0.0)]}
    monkeypatch.setattr(compose, "instances", lambda _: running)
    monkeypatch.setattr(compose, "volumes", lambda _: ["s_redis-data", "s_postgres-data"])
    monkeypatch.setattr(compose, "create_volume", lambda name, volume: f"{name}_{volume}")
    monkeypatch.setattr(compose, "docker", lambda *arguments: taken.append(" ".join(arguments[:2])) or "")
    monkeypatch.setattr(compose, "run", lambda *_: taken.append("stop"))
    monkeypatch.setattr(deployment, "configure", lambda *_: taken.append("configure"))
    monkeypatch.setattr(deployment, "start", lambda _p, _s, services=None: taken.append(f"start {services or 'all'}"))
    monkeypatch.setattr(restored_database, "in_volume", lambda _i, _v, script: taken.append(NAMES[script]))
    monkeypatch.setattr(restored_database, "system_id", lambda *_: "1")
    monkeypatch.setattr(restoration, "query", lambda _r, statements: taken.append(statements.split()[0].lower()))
    monkeypatch.setattr(saved_files, "restore_volumes", lambda *_: taken.append("volumes"))
    secrets_store.generate(project)
    return taken


NAMES = {restored_database.SWITCH: "switch", restored_database.UNDO: "undo", restored_database.FINISH: "finish"}
IMAGES = {"AIRFLOW_IMAGE": SimpleNamespace(reference="airflow")}


def planned(project) -> Restoration:
    settings = {"COMPOSE_PROJECT_NAME": "s", "COMPOSE_PROFILES": "data"}
    return Restoration(project, settings, SOURCE, CHOSEN, None, is_exact=False, report=lambda _: None)


def test_dags_are_held_before_anything_but_the_data_tier_runs(project, steps):
    restoration.change(planned(project), IMAGES, lambda: steps.append("hold"))
    assert steps[steps.index("stop") :] == [
        *("stop", "switch", "volume rm", "start ['postgres']", "set", "start ['redis', 'migrate']", "hold"),
        *("alter", "finish", "start all"),
    ]


def test_a_failed_hold_brings_the_former_database_back(project, steps):
    def fails() -> None:
        raise StackError("cannot hold")

    with pytest.raises(StackError, match="cannot hold"):
        restoration.change(planned(project), IMAGES, fails)
    assert steps[-4:] == ["stop", "undo", "volume rm", "start all"]
    assert "alter" not in steps, "the archive has nothing of the timeline that was given up"


def test_a_failed_hold_leaves_a_stack_without_a_database_stopped(project, steps, monkeypatch):
    monkeypatch.setattr(restored_database, "system_id", lambda *_: "")

    def fails() -> None:
        raise StackError("cannot hold")

    with pytest.raises(StackError, match="cannot hold"):
        restoration.change(planned(project), IMAGES, fails)
    assert steps[-3:] == ["stop", "undo", "volume rm"], "an empty database would start, or none"


def test_a_former_database_that_does_not_start_hides_no_reason(project, steps, monkeypatch):
    reported: list[str] = []

    def fails(_p: object, _s: object, services: object = None) -> None:
        if services is None:
            raise StackError("it does not start")

    def refuses() -> None:
        monkeypatch.setattr(deployment, "start", fails)
        raise StackError("cannot hold")

    with pytest.raises(StackError, match="cannot hold") as raised:
        restoration.change(replace(planned(project), report=reported.append), IMAGES, refuses)
    assert "it does not start" in (raised.value.hint or "")
    assert any("cannot hold" in line for line in reported), "reported before the way back, which may hang"


def test_an_interrupt_brings_the_former_database_back(project, steps):
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(StackError, match="interrupted"):
        restoration.change(planned(project), IMAGES, interrupted)
    assert "undo" in steps


def test_a_failed_exchange_starts_the_stack_again(project, steps, monkeypatch):
    def fails(_image: str, _volume: str, script: str) -> None:
        steps.append(NAMES[script])
        if script == restored_database.SWITCH:
            raise ValueError("no room")

    monkeypatch.setattr(restored_database, "in_volume", fails)
    with pytest.raises(StackError, match="no room"):
        restoration.change(planned(project), IMAGES, lambda: None)
    assert steps[-3:] == ["undo", "volume rm", "start all"]


def test_record_of_the_leader_returns_with_the_former_database(project, monkeypatch):
    scripts: dict[str, list[str]] = {}
    removed: list[str] = []
    monkeypatch.setattr(compose, "create_volume", lambda _, volume: volume)
    monkeypatch.setattr(compose, "volumes", lambda _: [f"s_{name}-data" for name in ("etcd-1", "patroni-1", "redis-1")])
    monkeypatch.setattr(compose, "docker", lambda *arguments: removed.extend(arguments[2:]) or "")
    monkeypatch.setattr(
        restored_database, "in_volume", lambda _, volume, script: scripts.setdefault(volume, []).append(script)
    )
    settings = {"COMPOSE_PROJECT_NAME": "s", "COMPOSE_PROFILES": "data-ha"}
    plan = replace(planned(project), settings=settings)
    restoration.exchange(plan)
    restoration.exchange_back(plan)
    etcd = [restored_database.of_etcd(script) for script in (restored_database.SET_ASIDE, restored_database.UNDO)]
    assert {tuple(scripts[f"etcd-{number}-data"]) for number in (1, 2, 3)} == {tuple(etcd)}
    assert set(removed) == {"s_redis-1-data"}


def test_a_node_that_is_not_yet_the_primary_gets_no_statement(project, monkeypatch):
    answers = iter(["t", "f"])
    asked: list[str] = []
    monkeypatch.setattr("ops.waiting.POLL_SECONDS", 0.0)
    monkeypatch.setattr(compose, "instances", lambda _: {"postgres": [compose.Instance("a", "running", "healthy", 0)]})
    monkeypatch.setattr(data_tier, "ask", lambda *_: next(answers))
    monkeypatch.setattr(
        data_tier, "execute", lambda name, *_, stdin: asked.append(name) or SimpleNamespace(returncode=0)
    )
    restoration.query(planned(project), "SELECT 1")
    assert (asked, list(answers)) == (["a"], [])


@pytest.fixture
def node(monkeypatch):
    """A node that keeps a replaced database, and what it answers by the first word of a command."""
    answers: dict[str, str | None] = {"du": "3221225472\t/var/lib/postgresql/data/replaced", "ls": None}
    monkeypatch.setattr(data_tier, "ask", lambda _, command, *__: answers[command])
    return answers


RUNNING = {"patroni-2": [compose.Instance("b", "running", "healthy", 0.0)]}


def test_a_replaced_database_is_listed_with_its_size(node):
    assert replaced.sizes(RUNNING) == {"b": 3221225472}
    replaced.refuse_only_way_back(RUNNING)
    node |= {"du": None, "ls": "unfinished"}
    assert replaced.sizes(RUNNING) == {}
    with pytest.raises(StackError, match="has not ended"):
        replaced.refuse_only_way_back(RUNNING)


def done(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("is_unfinished", "left"), [(False, []), (True, ["replaced", "unfinished"])])
def test_the_only_way_back_is_never_deleted(node, monkeypatch, tmp_path, is_unfinished, left):
    (tmp_path / "replaced").mkdir()
    if is_unfinished:
        (tmp_path / "unfinished").touch()
    script = replaced.DELETE.replace(backup_config.DATA, str(tmp_path))
    monkeypatch.setattr(data_tier, "execute", lambda _, *__: done(script))
    with pytest.raises(StackError, match="no output") if is_unfinished else contextlib.nullcontext():
        replaced.delete(RUNNING)
    assert sorted(path.name for path in tmp_path.iterdir()) == left
