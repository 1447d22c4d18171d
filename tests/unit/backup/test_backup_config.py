"""The files of the profile `backup`, and the confirmation that its passphrase is stored elsewhere."""

from __future__ import annotations

import hashlib
import json

import pytest

from ops import backup_config, backup_storage, preflight, settings_file
from ops.errors import StackError
from ops.images.resolve import ResolvedImage
from ops.project import ROOT, Project

ON = {"COMPOSE_PROFILES": "data,backup"}
SECRETS = {"backup_passphrase": "p", "fernet_key": "f", "jwt_tasks_key": "j", "api_secret_key": "k"}


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(ROOT, tmp_path)


def test_without_the_profile_no_file_has_content():
    assert set(backup_config.mounted_files({"COMPOSE_PROFILES": "data"}, SECRETS).values()) == {""}
    derived = backup_config.derived({"COMPOSE_PROFILES": "data"}, {})
    assert derived == {"BACKUP_REPOSITORY": "", "BACKUP_ROUTE": "", "BACKUP_IMAGE": ""}


def test_a_set_has_the_secrets_but_those_that_a_restore_replaces():
    files = backup_config.mounted_files(ON, SECRETS)
    assert json.loads(files["backup-files/stack_secrets.json"]) == {"fernet_key": "f"}
    assert "repo1-cipher-pass=p\n" in files["backup/pgbackrest.conf"]


S3 = {
    "BACKUP_STORAGE": "local,s3",
    "BACKUP_S3_ENDPOINT": "s3.test:9000",
    "BACKUP_S3_BUCKET": "bucket",
    "BACKUP_S3_PREFIX": "here",
}
S3_SECRETS = SECRETS | {"backup_s3_key": "key", "backup_s3_key_secret": "hidden"}


def test_both_storages_are_configured_with_the_same_passphrase():
    text = backup_config.mounted_files(ON | S3, S3_SECRETS)["backup/pgbackrest.conf"]
    for line in (
        *("repo1-path=/var/lib/backup/pgbackrest", "repo2-path=/here/pgbackrest", "repo2-s3-key-secret=hidden"),
        *("repo1-cipher-pass=p", "repo2-cipher-pass=p", "io-timeout=10"),
    ):
        assert f"{line}\n" in text
    assert "ca-file" not in text
    assert "repo1" not in backup_config.pgbackrest(ON | S3 | {"BACKUP_STORAGE": "s3"}, S3_SECRETS, "/x")
    files = backup_config.mounted_files(ON | S3, S3_SECRETS | {"backup_s3_ca.pem": "c"})
    assert "repo2-storage-ca-file=/run/secrets/backup_s3_ca.pem\n" in files["backup/pgbackrest.conf"]
    environment = json.loads(files["backup-files/restic.json"])["s3"]
    assert environment["RESTIC_REPOSITORY"] == "s3:https://s3.test:9000/bucket/here/restic"
    assert (environment["RESTIC_PASSWORD"], environment["AWS_SECRET_ACCESS_KEY"]) == ("p", "hidden")


def test_only_s3_gets_a_route_outside():
    images = {"BACKUP_IMAGE": ResolvedImage("image", "built")}
    assert backup_config.derived(ON, images)["BACKUP_ROUTE"] == ""
    assert backup_config.derived(ON | S3, images)["BACKUP_ROUTE"] == "guarded-with-route"


@pytest.mark.parametrize("name", ["BACKUP_S3_ENDPOINT", "BACKUP_S3_BUCKET", "backup_s3_key", "backup_s3_key_secret"])
def test_what_s3_lacks_is_named(project, name):
    project.secrets.mkdir()
    for secret in {"backup_s3_key", "backup_s3_key_secret"} - {name}:
        (project.secrets / secret).write_text("text\n")
    with pytest.raises(StackError, match=name):
        backup_storage.check(project, {key: text for key, text in S3.items() if key != name})


def test_an_authority_without_a_certificate_is_refused(project):
    project.secrets.mkdir()
    for secret in backup_storage.SECRETS:
        (project.secrets / secret).write_text("text\n")
    with pytest.raises(StackError, match="no certificate"):
        backup_storage.check(project, S3)


def test_settings_reach_postgres_and_pgbackrest():
    files = backup_config.mounted_files(ON | {"BACKUP_WAL_SECONDS": "10", "BACKUP_KEEP": "2"}, SECRETS)
    assert "archive_timeout = 10\n" in files["backup/archive.conf"]
    assert "repo1-retention-full=2\n" in files["backup/pgbackrest.conf"]


def test_the_reference_has_the_defaults_of_the_settings():
    reference = (ROOT / "compose/README.md").read_text()
    wrong = [name for name, value in backup_config.DEFAULTS.items() if f"| `{name}` | `{value}` |" not in reference]
    assert wrong == []


def test_backups_are_refused_until_the_passphrase_is_stored(project):
    settings = settings_file.defaults(project) | ON
    with pytest.raises(StackError, match="outside this machine") as error:
        preflight.check_backup(project, settings)
    passphrase = project.secrets / "backup_passphrase"
    assert passphrase.exists(), "there is something to copy"
    digest = hashlib.sha256(passphrase.read_bytes()).hexdigest()
    assert digest[:8] not in str(error.value), "the confirmation needs the file"
    preflight.check_backup(project, settings | {"BACKUP_PASSPHRASE_STORED": digest[:8]})
    passphrase.write_text("another\n")
    with pytest.raises(StackError, match="outside this machine"):
        preflight.check_backup(project, settings | {"BACKUP_PASSPHRASE_STORED": digest[:8]})


def test_a_folder_that_the_containers_cannot_write_is_refused(project, tmp_path):
    preflight.secrets_store.generate(project)
    stored = {"BACKUP_PASSPHRASE_STORED": backup_config.digest(project), "BACKUP_FOLDER": str(tmp_path / "backups")}
    settings = settings_file.defaults(project) | ON | stored
    with pytest.raises(StackError, match="BACKUP_FOLDER"):
        preflight.check_backup(project, settings)
    (tmp_path / "backups").mkdir()
    (tmp_path / "backups").chmod(0o1777)
    preflight.check_backup(project, settings)


def test_the_profile_needs_a_postgres_of_the_stack():
    with pytest.raises(StackError, match="without data or data-ha"):
        settings_file.check_profiles(["backup"], "--profile")
