"""Secrets are generated once, readable only by their readers, and never replaced silently."""

from __future__ import annotations

import base64
import os
import shutil
import stat
import time
from urllib.parse import unquote, urlsplit

import bcrypt
import pytest
import yaml
from sqlalchemy import make_url

from ops import secrets_store, settings_file, token_keys
from ops.atomic_file import write_atomically
from ops.errors import StackError


@pytest.fixture
def made(project):
    """A project with generated secrets."""
    secrets_store.generate(project)
    return project


def no_data() -> bool:
    return False


def write_secret(path, text: str) -> None:
    write_atomically(path, text, secrets_store.OWNER_ONLY)


def test_each_secret_is_random_and_readable_by_its_owner_only(made):
    values = {name: (made.secrets / name).read_text().strip() for name in secrets_store.GENERATORS}
    assert len(set(values.values())) == len(values)
    assert all(len(value) >= 32 for value in values.values())
    assert len(base64.urlsafe_b64decode(values["fernet_key"])) == 32
    modes = {stat.S_IMODE((made.secrets / name).stat().st_mode) for name in values}
    assert modes == {0o600}
    assert stat.S_IMODE(made.secrets.stat().st_mode) == 0o700


def test_second_up_keeps_the_secrets(made):
    before = {name: (made.secrets / name).read_text() for name in secrets_store.GENERATORS}
    assert secrets_store.generate(made) == []
    assert {name: (made.secrets / name).read_text() for name in secrets_store.GENERATORS} == before
    secrets_store.check(made, no_data)


def test_lost_secret_is_refused_and_not_generated_again(made):
    (made.secrets / "fernet_key").unlink()
    with pytest.raises(StackError, match=r"fernet_key.* is missing") as refused:
        secrets_store.check(made, no_data)
    assert "restore" in refused.value.hint
    assert not (made.secrets / "fernet_key").exists()


def test_empty_secret_is_refused(made):
    (made.secrets / "redis_password").write_text(" \n")
    with pytest.raises(StackError, match=r"redis_password.* is empty"):
        secrets_store.check(made, no_data)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_secret_that_others_can_read_is_refused_with_chmod(made, mode):
    path = made.secrets / "jwt_users_key"
    path.chmod(mode)
    with pytest.raises(StackError, match="jwt_users_key") as refused:
        secrets_store.check(made, no_data)
    assert f"chmod 600 {path}" in refused.value.hint
    assert f"mode {mode:04o}" in refused.value.what


def test_secret_of_several_lines_is_refused(made):
    (made.secrets / "redis_password").write_text("a\nb\n")
    with pytest.raises(StackError, match="several lines"):
        secrets_store.check(made, no_data)


@pytest.mark.parametrize("name", secrets_store.LOG_INS)
def test_log_in_password_of_11_characters_is_refused(made, name):
    (made.secrets / name).write_text("x" * 11 + "\n")
    with pytest.raises(StackError, match=f"{name}: it has fewer than 12 characters"):
        secrets_store.check(made, lambda: True)
    (made.secrets / name).write_text("x" * 12 + "\n")
    secrets_store.check(made, lambda: True)


def test_database_without_its_secrets_is_refused(project):
    with pytest.raises(StackError, match="secrets") as refused:
        secrets_store.check(project, lambda: True)
    assert "down --volumes" in refused.value.hint


def test_first_up_needs_no_secrets(project):
    secrets_store.check(project, no_data)


def test_secret_new_in_this_version_is_generated(made):
    old = [name for name in secrets_store.GENERATORS if name != "flower_password"]
    (made.secrets / "flower_password").unlink()
    (made.secrets / secrets_store.NAMES_FILE).write_text("\n".join(old))
    secrets_store.check(made, no_data)
    assert secrets_store.generate(made) == ["flower_password"]


def test_interrupted_generation_leaves_no_secret(project, monkeypatch):
    monkeypatch.setitem(secrets_store.GENERATORS, "flower_password", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        secrets_store.generate(project)
    assert not any((project.secrets / name).exists() for name in secrets_store.GENERATORS)
    monkeypatch.undo()
    assert len(secrets_store.generate(project)) == len(secrets_store.GENERATORS)


@pytest.fixture
def owners(monkeypatch):
    """The uid of each file passed to chown, which is replaced: tests need not be root."""
    uids: dict[str, int] = {}
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", lambda path, uid, _: uids.__setitem__(path.name, uid))
    monkeypatch.setattr(secrets_store, "all_owned", lambda root, files: all((root / name).exists() for name in files))
    return uids


def test_web_configuration_has_the_passwords_hash_and_stays_equal(made):
    password = secrets_store.read(made, "observability_password")
    files = secrets_store.mounted_files(made, settings_file.read(made))
    webs = {files[f"{reader}_web.yaml"] for reader in ("prometheus/prometheus", "alertmanager/alertmanager",
                                                       "postgres-exporter/postgres_exporter")}  # fmt: skip
    (web,) = webs
    (user, hashed) = next(iter(yaml.safe_load(web)["basic_auth_users"].items()))
    assert (user, bcrypt.checkpw(password.encode(), hashed.encode())) == ("admin", True)
    assert secrets_store.mounted_files(made, settings_file.read(made)) == files
    assert secrets_store.web_config(password, key="other") != web


def test_password_of_the_pages_has_at_most_72_bytes(made):
    (made.secrets / "observability_password").write_text("\u00fc" * 37 + "\n")
    with pytest.raises(StackError, match="more than 72 bytes"):
        secrets_store.check(made, no_data)


def test_password_with_quotes_is_quoted_for_haproxy(made):
    assert secrets_store.userlist("pages", "it's") == "userlist pages\n    user admin insecure-password 'it'\\''s'\n"


def test_grafana_and_the_pages_door_share_a_header(made):
    files = secrets_store.mounted_files(made, settings_file.read(made))
    header = files["grafana/grafana_log_in_header"]
    assert f"setenv GRAFANA_LOG_IN {header}\n" in files["pages/pages.cfg"]
    assert not [name for name, text in files.items() if header in text and not name.startswith(("grafana/", "pages/"))]
    (made.secrets / "api_secret_key").write_text("another\n")
    assert secrets_store.mounted_files(made, settings_file.read(made))["grafana/grafana_log_in_header"] != header


def test_each_mounted_file_belongs_to_its_reader(made, owners):
    settings = settings_file.read(made)
    assert secrets_store.mount(made, settings, "image") is True
    assert owners["fernet_key"] == 50000
    assert owners["redis_auth.conf"] == owners["postgres_airflow_password"] == 999
    files = [path for path in (made.secrets / "mounted").rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


@pytest.mark.usefixtures("owners")
def test_mount_rewrites_files_only_after_a_change(made):
    settings = settings_file.read(made)
    assert [secrets_store.mount(made, settings, "image") for _ in range(2)] == [True, False]
    settings["POSTGRES_HOST"] = "db.example"
    assert secrets_store.mount(made, settings, "image") is True
    url = (made.secrets / "mounted/airflow/sql_alchemy_conn").read_text()
    assert url.startswith("postgresql+psycopg2://airflow:")
    assert "@db.example:5432/airflow" in url


@pytest.mark.usefixtures("owners")
def test_forgotten_token_secret_rewrites_only_the_files_of_tokens(made):
    write_secret(made.secrets / token_keys.FORMER, "s" * 64 + "\n")
    settings = settings_file.read(made)
    secrets_store.mount(made, settings, "image")
    since = secrets_store.mounted_since(made)
    (made.secrets / token_keys.FORMER).unlink()
    assert secrets_store.mount(made, settings, "image") is True
    changed = {name for name, at in secrets_store.mounted_since(made).items() if at != since[name]}
    assert changed == {f"{token_keys.READER}/{token_keys.TRUSTED[token_keys.TASKS]}"}


@pytest.mark.usefixtures("owners")
def test_result_backend_has_its_own_role_and_database(made):
    secrets_store.mount(made, settings_file.read(made), "image")
    mounted = made.secrets / "mounted/airflow"
    backend = (mounted / "celery_result_backend").read_text()
    assert "//celery_results:" in backend
    assert "/celery_results?" in backend
    assert (made.secrets / "postgres_airflow_password").read_text().strip() not in backend
    assert "//airflow:" in (mounted / "celery_results_owner").read_text()
    assert "//postgres:" in (mounted / "postgres_superuser_conn").read_text()


@pytest.mark.usefixtures("owners")
def test_external_postgres_has_no_superuser(made):
    secrets_store.mount(made, settings_file.read(made) | {"COMPOSE_PROFILES": "flower"}, "image")
    assert (made.secrets / "mounted/airflow/postgres_superuser_conn").read_text() == ""


def test_chown_container_has_no_secret_on_its_command_line(made, docker, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(secrets_store, "all_owned", lambda *_: True)
    secrets_store.mount(made, settings_file.read(made), "airflow-ha/airflow:1")
    (call,) = docker.calls()
    assert call[0] == "run"
    assert "--network=none" in call
    assert "chown 50000 /secrets/airflow/fernet_key" in call[-1]
    values = [(made.secrets / name).read_text().strip() for name in secrets_store.GENERATORS]
    assert not any(value in " ".join(call) for value in values)


def test_lost_secret_and_lost_names_file_are_refused_with_data(made):
    (made.secrets / secrets_store.NAMES_FILE).unlink()
    (made.secrets / "fernet_key").unlink()
    with pytest.raises(StackError, match=r"fernet_key.* is missing"):
        secrets_store.check(made, lambda: True)


def test_first_up_keeps_the_operators_secrets(project):
    project.secrets.mkdir()
    write_secret(project.secrets / "redis_password", "mine\n")
    secrets_store.check(project, no_data)
    assert set(secrets_store.generate(project)) == secrets_store.GENERATORS.keys() - {"redis_password"}
    assert (project.secrets / "redis_password").read_text() == "mine\n"


def test_password_of_an_external_database_is_not_generated(project):
    with pytest.raises(StackError, match="postgres_airflow_password is missing") as refused:
        secrets_store.check(project, no_data, external=True)
    assert "chmod 600" in refused.value.hint
    project.secrets.mkdir()
    for name in secrets_store.SUPPLIED:
        write_secret(project.secrets / name, "mine\n")
    secrets_store.check(project, no_data, external=True)


@pytest.mark.usefixtures("owners")
def test_password_with_url_characters_is_quoted(made):
    write_secret(made.secrets / "postgres_airflow_password", "p@ss/w:rd#1\n")
    secrets_store.mount(made, settings_file.read(made), "image")
    url = (made.secrets / "mounted/airflow/sql_alchemy_conn").read_text()
    assert urlsplit(url).hostname == "postgres"
    assert unquote(urlsplit(url).password or "") == "p@ss/w:rd#1"


@pytest.fixture
def replicated(made, owners):
    """The files that Airflow's containers mount with profile data-ha, by name."""
    secrets_store.mount(made, settings_file.read(made) | {"COMPOSE_PROFILES": "data-ha,flower"}, "image")
    return {path.name: path.read_text() for path in (made.secrets / "mounted/airflow").iterdir()}


@pytest.mark.parametrize(
    "name",
    [
        "sql_alchemy_conn",
        "sql_alchemy_conn_async",
        "celery_result_backend",
        "celery_results_owner",
        "postgres_superuser_conn",
    ],
)
def test_replicated_database_url_has_all_nodes_and_read_write(replicated, name):
    url = make_url(replicated[name].removeprefix("db+"))
    assert url.query["host"] == ("patroni-1:5432", "patroni-2:5432")
    assert url.query["target_session_attrs"] == "read-write"
    assert url.query["connect_timeout"] == "3"
    assert url.host is None


def test_replicated_database_driver_gets_all_hosts_and_ports(replicated):
    url = make_url(replicated["sql_alchemy_conn"])
    _, arguments = url.get_dialect()().create_connect_args(url)
    assert (arguments["host"], arguments["port"]) == ("patroni-1,patroni-2", "5432,5432")


@pytest.mark.usefixtures("owners")
def test_mounted_since_is_the_time_of_the_last_write(made):
    assert secrets_store.mounted_since(made) == {}
    before = time.time()
    secrets_store.mount(made, settings_file.read(made), "image")
    since = secrets_store.mounted_since(made)
    assert {name.partition("/")[0] for name in since} == secrets_store.READERS.keys()
    assert all(before - 1 <= written <= time.time() + 1 for written in since.values())


@pytest.mark.usefixtures("owners")
def test_changed_webhook_rewrites_only_alertmanagers_files(made):
    settings = settings_file.read(made)
    secrets_store.mount(made, settings, "image")
    mounted = made.secrets / "mounted"
    before = {path: path.stat().st_ino for path in mounted.rglob("*") if path.is_file()}
    write_secret(made.secrets / "slack_webhook_url", "https://hooks.slack.com/services/T1/B1/abc\n")
    assert secrets_store.mount(made, settings, "image") is True
    after = {path: path.stat().st_ino for path in mounted.rglob("*") if path.is_file()}
    assert before.keys() == after.keys()
    changed = {path.name for path in after if after[path] != before[path]}
    assert changed == {"slack_webhook_url", "slack_webhook_url_data", secrets_store.DIGEST_FILE}
    assert (mounted / "alertmanager/slack_webhook_url").read_text() == "https://hooks.slack.com/services/T1/B1/abc"


@pytest.mark.usefixtures("owners")
def test_mounted_files_are_brought_back_where_they_changed(made, tmp_path):
    """A container that started with the files of between is older than those that are back."""
    settings = settings_file.read(made)
    secrets_store.mount(made, settings, "image")
    kept, mounted = tmp_path / "kept", made.secrets / "mounted"
    secrets_store.copy_mounted(mounted, kept, "image")
    before = {path: path.stat() for path in mounted.rglob("*") if path.is_file()}
    write_secret(made.secrets / "slack_webhook_url", "https://hooks.slack.com/services/T1/B1/abc\n")
    secrets_store.mount(made, settings, "image")
    shutil.rmtree(mounted / "redis")
    since = time.time()
    secrets_store.bring_back(made, kept, "image")
    assert (mounted / "alertmanager/slack_webhook_url").read_text().startswith("http://slack-stub")
    after = {path: path.stat() for path in mounted.rglob("*") if path.is_file()}
    assert after.keys() == before.keys()
    assert {path.stat().st_mode & 0o777 for path in after} == {0o600}
    assert {path.parent.name for path in after if after[path].st_ino != before[path].st_ino} == {
        "alertmanager",
        "redis",
    }
    times = secrets_store.mounted_since(made)
    assert times["alertmanager/slack_webhook_url"] >= since
    assert times["alertmanager/smtp_password"] < since
    assert not (made.secrets / "mounted.part").exists()


@pytest.mark.usefixtures("owners")
def test_alertmanager_without_a_webhook_uses_the_slack_stub(made):
    secrets_store.mount(made, settings_file.read(made), "image")
    for name in ("slack_webhook_url", "slack_webhook_url_data"):
        assert (made.secrets / "mounted/alertmanager" / name).read_text().startswith("http://slack-stub:8025/services/")


@pytest.mark.parametrize(
    ("name", "text", "reason"),
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
def test_malformed_secret_is_refused_without_its_value(made, name, text, reason):
    write_secret(made.secrets / name, text)
    with pytest.raises(StackError, match=f"the secret {name}: .*{reason}") as refused:
        secrets_store.check(made, no_data)
    assert not text.strip() or text.strip() not in str(refused.value)


@pytest.mark.parametrize("url", ["https://hooks.slack.com/services/T1/B1/aB9", "https://mattermost.example/hooks/x"])
def test_webhook_of_slack_or_another_server_is_accepted(made, url):
    write_secret(made.secrets / "slack_webhook_url", url + "\n")
    secrets_store.check(made, no_data)


@pytest.mark.usefixtures("owners")
def test_live_file_is_written_in_place_and_stays_as_old(made):
    settings = settings_file.read(made)
    secrets_store.mount(made, settings, "image")
    root, live = made.secrets / "mounted", "redis/redis_users.acl"
    inode, since = (root / live).stat().st_ino, secrets_store.mounted_since(made)
    write_secret(made.secrets / "redis_scheduler_password", "of-today\n")
    assert secrets_store.mount(made, settings, "image", {live}) is True
    assert (root / live).stat().st_ino == inode
    assert (root / live).read_text() == secrets_store.mounted_files(made, settings)[live]
    changed = {name for name, at in secrets_store.mounted_since(made).items() if at != since[name]}
    assert changed == {
        "airflow/scheduler_broker_url",
        "redis/sentinel_auth.conf",
    }, "containers that read other files are not replaced"
    assert secrets_store.mount(made, settings, "image", {live}) is False


def test_live_file_of_another_user_is_written_by_a_container(made, docker, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(secrets_store, "all_owned", lambda *_: True)
    secrets_store.mount(made, settings_file.read(made), "airflow-ha/airflow:1")
    write_secret(made.secrets / "flower_password", "of-this-very-day\n")
    secrets_store.mount(made, settings_file.read(made), "airflow-ha/airflow:1", {"pages/pages.cfg"})
    assert "cat /from/pages/pages.cfg > /to/pages/pages.cfg" in docker.calls()[-1][-1]
