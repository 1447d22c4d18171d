"""Secrets are made once, never seen by others, and never replaced silently."""

from __future__ import annotations

import base64
import json
import os
import stat
import time
from urllib.parse import unquote, urlsplit

import pytest
from sqlalchemy import make_url

from ops import secrets_store, settings_file
from ops.errors import StackError


@pytest.fixture
def made(project):
    """A project with its secrets made."""
    secrets_store.generate(project)
    return project


def no_data() -> bool:
    return False


def test_every_secret_is_made_with_its_own_random_value_for_its_owner_alone(made):
    values = {name: (made.secrets / name).read_text().strip() for name in secrets_store.GENERATORS}
    assert len(set(values.values())) == len(values)
    assert all(len(value) >= 32 for value in values.values())
    assert len(base64.urlsafe_b64decode(values["fernet_key"])) == 32
    modes = {stat.S_IMODE((made.secrets / name).stat().st_mode) for name in values}
    assert modes == {0o600}
    assert stat.S_IMODE(made.secrets.stat().st_mode) == 0o700


def test_a_second_up_keeps_them(made):
    before = {name: (made.secrets / name).read_text() for name in secrets_store.GENERATORS}
    assert secrets_store.generate(made) == []
    assert {name: (made.secrets / name).read_text() for name in secrets_store.GENERATORS} == before
    secrets_store.check(made, no_data)


def test_a_lost_secret_is_refused_by_name_and_not_made_anew(made):
    (made.secrets / "fernet_key").unlink()
    with pytest.raises(StackError, match="the secret fernet_key is missing") as refused:
        secrets_store.check(made, no_data)
    assert "restore it" in refused.value.hint
    assert not (made.secrets / "fernet_key").exists()


def test_an_empty_secret_is_refused_by_name(made):
    (made.secrets / "redis_password").write_text(" \n")
    with pytest.raises(StackError, match="the secret redis_password is empty"):
        secrets_store.check(made, no_data)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_secret_that_others_can_read_is_refused_with_the_cure(made, mode):
    path = made.secrets / "jwt_secret"
    path.chmod(mode)
    with pytest.raises(StackError, match="jwt_secret is open to others") as refused:
        secrets_store.check(made, no_data)
    assert refused.value.hint == f"chmod 600 {path}"


def test_a_secret_of_several_lines_is_refused(made):
    (made.secrets / "redis_password").write_text("a\nb\n")
    with pytest.raises(StackError, match="several lines"):
        secrets_store.check(made, no_data)


def test_no_secrets_beside_a_database_that_was_made_with_some_is_refused(project):
    with pytest.raises(StackError, match="secrets of this stack are gone") as refused:
        secrets_store.check(project, lambda: True)
    assert "down --volumes" in refused.value.hint


def test_no_secrets_and_no_data_is_a_first_up(project):
    secrets_store.check(project, no_data)


def test_a_secret_that_a_new_version_brings_is_made_beside_the_old_ones(made):
    old = [name for name in secrets_store.GENERATORS if name != "flower_password"]
    (made.secrets / "flower_password").unlink()
    (made.secrets / secrets_store.NAMES_FILE).write_text("\n".join(old))
    secrets_store.check(made, no_data)
    assert secrets_store.generate(made) == ["flower_password"]


def test_an_interrupted_generation_leaves_nothing_that_counts(project, monkeypatch):
    monkeypatch.setitem(secrets_store.GENERATORS, "flower_password", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        secrets_store.generate(project)
    assert not any((project.secrets / name).exists() for name in secrets_store.GENERATORS)
    monkeypatch.undo()
    assert len(secrets_store.generate(project)) == len(secrets_store.GENERATORS)


@pytest.fixture
def handed_over(monkeypatch):
    """Records chown instead of doing it: tests need not be root."""
    owners: dict[str, int] = {}
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", lambda path, uid, _: owners.__setitem__(path.name, uid))
    monkeypatch.setattr(secrets_store, "all_owned", lambda root, files: all((root / name).exists() for name in files))
    return owners


def test_each_mounted_file_belongs_to_its_one_reader(made, handed_over):
    settings = settings_file.read(made)
    assert secrets_store.mount(made, settings, "image") is True
    assert handed_over["fernet_key"] == 50000
    assert handed_over["redis_auth.conf"] == handed_over["postgres_airflow_password"] == 999
    files = [path for path in (made.secrets / "mounted").rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


@pytest.mark.usefixtures("handed_over")
def test_mounting_again_changes_nothing_until_a_secret_or_a_host_changes(made):
    settings = settings_file.read(made)
    assert [secrets_store.mount(made, settings, "image") for _ in range(2)] == [True, False]
    settings["POSTGRES_HOST"] = "db.example"
    assert secrets_store.mount(made, settings, "image") is True
    url = (made.secrets / "mounted/airflow/sql_alchemy_conn").read_text()
    assert url.startswith("postgresql+psycopg2://airflow:")
    assert "@db.example:5432/airflow" in url


@pytest.mark.usefixtures("handed_over")
def test_the_result_backend_is_another_role_and_another_database(made):
    secrets_store.mount(made, settings_file.read(made), "image")
    mounted = made.secrets / "mounted/airflow"
    backend = (mounted / "celery_result_backend").read_text()
    assert "//celery_results:" in backend
    assert "/celery_results?" in backend
    assert (made.secrets / "postgres_airflow_password").read_text().strip() not in backend


def test_without_root_a_container_hands_the_files_over_and_no_secret_is_on_its_command_line(made, docker, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(secrets_store, "all_owned", lambda *_: True)
    secrets_store.mount(made, settings_file.read(made), "airflow-ha/airflow:1")
    (call,) = docker.calls()
    assert call[0] == "run"
    assert "--network=none" in call
    assert "chown 50000 /secrets/airflow/fernet_key" in call[-1]
    values = [(made.secrets / name).read_text().strip() for name in secrets_store.GENERATORS]
    assert not any(value in " ".join(call) for value in values)


def test_a_lost_secret_is_refused_when_the_list_of_names_is_lost_too_but_the_database_is_there(made):
    (made.secrets / secrets_store.NAMES_FILE).unlink()
    (made.secrets / "fernet_key").unlink()
    with pytest.raises(StackError, match="the secret fernet_key is missing"):
        secrets_store.check(made, lambda: True)


def test_secrets_that_the_operator_brings_to_a_first_up_are_kept_and_the_others_made(project):
    project.secrets.mkdir()
    secrets_store.write_private(project.secrets / "redis_password", "mine\n")
    secrets_store.check(project, no_data)
    assert set(secrets_store.generate(project)) == secrets_store.GENERATORS.keys() - {"redis_password"}
    assert (project.secrets / "redis_password").read_text() == "mine\n"


def test_the_password_of_a_database_that_runs_elsewhere_is_asked_for_by_name_and_not_made_up(project):
    with pytest.raises(StackError, match="the secret postgres_airflow_password is missing") as refused:
        secrets_store.check(project, no_data, external=True)
    assert "chmod 600" in refused.value.hint
    project.secrets.mkdir()
    for name in secrets_store.SUPPLIED:
        secrets_store.write_private(project.secrets / name, "mine\n")
    secrets_store.check(project, no_data, external=True)


@pytest.mark.usefixtures("handed_over")
def test_a_password_of_the_operators_may_hold_what_a_url_cannot(made):
    secrets_store.write_private(made.secrets / "postgres_airflow_password", "p@ss/w:rd#1\n")
    secrets_store.mount(made, settings_file.read(made), "image")
    url = (made.secrets / "mounted/airflow/sql_alchemy_conn").read_text()
    assert urlsplit(url).hostname == "postgres"
    assert unquote(urlsplit(url).password or "") == "p@ss/w:rd#1"


@pytest.fixture
def replicated(made, handed_over):
    """What Airflow's containers mount with the profile data-ha, by name."""
    secrets_store.mount(made, settings_file.read(made) | {"COMPOSE_PROFILES": "data-ha,flower"}, "image")
    return {path.name: path.read_text() for path in (made.secrets / "mounted/airflow").iterdir()}


@pytest.mark.parametrize("name", ["sql_alchemy_conn", "sql_alchemy_conn_async", "celery_result_backend"])
def test_with_replicas_every_url_of_the_database_names_all_nodes_and_wants_the_primary(replicated, name):
    url = make_url(replicated[name].removeprefix("db+"))
    assert url.query["host"] == ("patroni-1:5432", "patroni-2:5432")
    assert url.query["target_session_attrs"] == "read-write"
    assert url.query["connect_timeout"] == "3"
    assert url.host is None


def test_with_replicas_the_drivers_get_all_hosts_with_their_ports(replicated):
    url = make_url(replicated["sql_alchemy_conn"])
    _, given = url.get_dialect()().create_connect_args(url)
    assert (given["host"], given["port"]) == ("patroni-1,patroni-2", "5432,5432")


def test_with_replicas_the_broker_is_found_by_any_sentinel_and_each_wants_the_password(made, replicated):
    password = (made.secrets / "redis_password").read_text().strip()
    urls = [urlsplit(url) for url in replicated["celery_broker_url"].split(";")]
    assert [url.hostname for url in urls] == ["sentinel", "sentinel-1", "sentinel-2", "sentinel-3"]
    assert {(url.scheme, url.password, url.port) for url in urls} == {("sentinel", password, 26379)}
    assert json.loads(replicated["celery_sentinel_kwargs"])["password"] == password


@pytest.mark.usefixtures("replicated")
def test_with_replicas_the_exporter_has_the_password_of_every_redis(made):
    text = (made.secrets / "mounted/redis-exporter/redis_exporter_passwords.json").read_text()
    assert set(json.loads(text)) == {f"redis://redis-{number}:6379" for number in (1, 2, 3)}


@pytest.mark.usefixtures("handed_over")
def test_without_replicas_there_is_nothing_of_sentinels(made):
    secrets_store.mount(made, settings_file.read(made), "image")
    mounted = made.secrets / "mounted/airflow"
    assert (mounted / "celery_sentinel_kwargs").read_text() == "{}"
    assert (mounted / "celery_broker_url").read_text().startswith("redis://:")


@pytest.mark.usefixtures("handed_over")
def test_containers_older_than_the_mounted_files_can_be_told(made):
    assert secrets_store.mounted_since(made) == {}
    before = time.time()
    secrets_store.mount(made, settings_file.read(made), "image")
    since = secrets_store.mounted_since(made)
    assert since.keys() == secrets_store.READERS.keys()
    assert all(before - 1 <= written <= time.time() + 1 for written in since.values())


@pytest.mark.usefixtures("handed_over")
def test_a_webhook_that_changes_leaves_the_files_of_every_other_reader_as_they_are(made):
    settings = settings_file.read(made)
    secrets_store.mount(made, settings, "image")
    mounted = made.secrets / "mounted"
    before = {path: path.stat().st_ino for path in mounted.rglob("*") if path.is_file()}
    secrets_store.write_private(made.secrets / "slack_webhook_url", "https://hooks.slack.com/services/T1/B1/abc\n")
    assert secrets_store.mount(made, settings, "image") is True
    after = {path: path.stat().st_ino for path in mounted.rglob("*") if path.is_file()}
    assert before.keys() == after.keys()
    assert {path.parent.name for path in after if after[path] != before[path]} == {"alertmanager"}
    assert (mounted / "alertmanager/slack_webhook_url").read_text() == "https://hooks.slack.com/services/T1/B1/abc"


@pytest.mark.usefixtures("handed_over")
def test_without_a_webhook_alertmanager_has_the_stacks_own_slack(made):
    secrets_store.mount(made, settings_file.read(made), "image")
    for name in ("slack_webhook_url", "slack_webhook_url_data"):
        assert (made.secrets / "mounted/alertmanager" / name).read_text().startswith("http://slack-stub:8025/services/")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("slack_webhook_url", "", "is empty"),
        ("slack_webhook_url", "a\nb\n", "several lines"),
        ("slack_webhook_url", "hooks.slack.com/services/T1/B1/abc", "is malformed"),
        ("slack_webhook_url", "http://hooks.slack.com/services/T1/B1/abc", "is malformed"),
        ("slack_webhook_url", "https://hooks.slack.com/services/T1/B1", "is malformed"),
        ("slack_webhook_url", "https://:443/services", "is malformed"),
        ("slack_webhook_url_data", "https://example.org:x/", "is malformed"),
        ("dead_mans_switch_url", "ping", "is malformed"),
        ("pagerduty_routing_key", "short", "is malformed"),
    ],
)
def test_an_operators_secret_that_cannot_be_right_is_refused_by_name_and_not_shown(made, name, text, said):
    secrets_store.write_private(made.secrets / name, text)
    with pytest.raises(StackError, match=f"the secret {name} {said}|the secret {name} has {said}") as refused:
        secrets_store.check(made, no_data)
    assert not text.strip() or text.strip() not in str(refused.value)


@pytest.mark.parametrize("url", ["https://hooks.slack.com/services/T1/B1/aB9", "https://mattermost.example/hooks/x"])
def test_slacks_webhook_and_that_of_another_server_are_taken(made, url):
    secrets_store.write_private(made.secrets / "slack_webhook_url", url + "\n")
    secrets_store.check(made, no_data)
