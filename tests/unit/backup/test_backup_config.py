"""The files of the profile `backup`, and the confirmation that its passphrase is stored elsewhere."""

from __future__ import annotations

import hashlib
import json

import pytest

from ops import backup_config, preflight, settings_file
from ops.errors import StackError
from ops.project import ROOT, Project

ON = {"COMPOSE_PROFILES": "data,backup"}
SECRETS = {"backup_passphrase": "p", "fernet_key": "f", "jwt_secret": "j", "api_secret_key": "k"}


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(ROOT, tmp_path)


def test_without_the_profile_no_file_has_content():
    assert set(backup_config.mounted_files({"COMPOSE_PROFILES": "data"}, SECRETS).values()) == {""}
    derived = backup_config.derived({"COMPOSE_PROFILES": "data"}, {})
    assert derived == {"BACKUP_REPOSITORY": "", "BACKUP_IMAGE": ""}


def test_a_set_has_the_secrets_but_those_that_a_restore_replaces():
    files = backup_config.mounted_files(ON, SECRETS)
    assert json.loads(files["backup-files/stack_secrets.json"]) == {"fernet_key": "f"}
    assert "repo1-cipher-pass=p\n" in files["backup/pgbackrest.conf"]


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
