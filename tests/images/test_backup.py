"""The profile `backup` beside the single Postgres, as the compose files run it, without Airflow."""

from __future__ import annotations

import json
import multiprocessing
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import pytest

from ops import backup_config, compose, data_tier, secrets_store, settings_file
from ops.backup import creation, repository, restoration, restored_database
from ops.backup.restoration import Restoration
from ops.backup.sets import Contents, choose
from ops.errors import StackError
from ops.project import Project
from tests.images.conftest import ROOT, docker

SERVICES = ("postgres", "backup", "backup-files")
SCHEMA = "CREATE TABLE alembic_version AS SELECT 'a'::text AS version_num; CREATE TABLE dag AS SELECT 1 AS id"


@contextmanager
def backup_project(
    state: Path,
    images,
    profiles: str,
    services: tuple[str, ...],
    own_settings: Mapping[str, str] = MappingProxyType({}),
    own_secrets: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Project]:
    """Run services of the profile `backup` and of its data tier."""
    project = Project(ROOT, state)
    settings = settings_file.read(project)
    name = f"airflow-ha-test-{uuid.uuid4().hex[:8]}"
    settings |= {"COMPOSE_PROJECT_NAME": name, "COMPOSE_PROFILES": profiles, "BACKUP_WAL_SECONDS": "10"}
    settings |= own_settings
    settings |= {key: image.reference for key, image in images.items()} | backup_config.derived(settings, images)
    secrets_store.generate(project)
    for secret, text in own_secrets.items():
        (project.secrets / secret).write_text(f"{text}\n")
        (project.secrets / secret).chmod(0o600)
    secrets_store.mount(project, settings, settings["AIRFLOW_IMAGE"])
    settings_file.write(project, settings)
    for folder in (state, *state.parents):
        if str(folder).startswith("/tmp/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    try:
        compose.output(project, "up", "--detach", "--wait", *services)
        yield project
    finally:
        compose.output(project, "--profile=*", "down", "--volumes", "--timeout=5")


@pytest.fixture(scope="module")
def project(images, tmp_path_factory) -> Iterator[Project]:
    """A Postgres with its backup services."""
    with backup_project(tmp_path_factory.mktemp("state"), images, "data,backup,backup-data", SERVICES) as project:
        yield project


@pytest.fixture
def settings(project) -> dict[str, str]:
    return settings_file.read(project)


def container(settings, service: str) -> str:
    return compose.instances(settings["COMPOSE_PROJECT_NAME"])[service][0].id


def wait(condition: Callable[[], object], seconds: float = 60) -> object:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(1)
    return value


def contents(project, settings) -> Contents:
    return repository.contents(repository.of_stack(project, settings, settings["BACKUP_IMAGE"]))


def metrics(settings, service: str) -> dict[str, float]:
    get = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9854/metrics').read().decode())"
    text = docker("exec", container(settings, service), "python3", "-c", get).output
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if " " in line}


def test_the_first_full_set_is_made_without_a_command(project, settings):
    def first_set():
        try:
            sets = contents(project, settings).sets
        except StackError:
            return None
        return sets[0] if sets and sets[0].files else None

    first = wait(first_set, 120)
    assert (first.kind, first.is_damaged) == ("full", False)
    wait(lambda: metrics(settings, "backup-files").get('airflow_ha_backup_files_up{repository="local"}') == 1.0)
    served = metrics(settings, "backup")
    assert served['airflow_ha_backup_repository_up{repository="local"}'] == served["airflow_ha_backup_active"] == 1.0
    last = 'airflow_ha_backup_last_success_timestamp_seconds{kind="full",repository="local"}'
    assert served[last] == first.stopped.timestamp()


def test_a_backup_now_adds_an_incremental_set_with_files(project, settings):
    label = creation.make(settings, print)
    newest = contents(project, settings).sets[-1]
    assert (newest.label, newest.kind) == (label, "incr")
    dump = (*repository.RESTIC, "dump", newest.files, "/run/secrets/stack_secrets.json")
    place = repository.of_stack(project, settings, settings["BACKUP_IMAGE"])
    saved = json.loads(repository.run(place, repository.FILES_USER, *dump).stdout)
    assert saved["fernet_key"] == secrets_store.read(project, "fernet_key")
    assert not saved.keys() & set(backup_config.NEVER_IN_A_SET)


def test_a_restore_of_the_newest_backup_is_verified_without_a_command(project, settings):
    query(settings, SCHEMA)
    label = creation.make(settings, print)
    verified = wait(lambda: contents(project, settings).sets[-1].verification, 180)
    assert verified.problems == (), label
    wait(lambda: metrics(settings, "backup").get(VERIFIED_AT))
    folders = docker("exec", container(settings, "backup"), "ls", "/var/lib/postgresql/postgres").output.split()
    assert folders == [], "the restored database is removed"


VERIFIED_AT = 'airflow_ha_backup_last_verified_restore_timestamp_seconds{repository="local"}'
VERIFY_NEWEST = """
from backup_database import Backups, Service
backups = Backups(Service())
(storage,) = backups.storages
backups.verify(storage, backups.repository(storage, backups.database(), ()).backups[-1])
"""


def test_damage_and_lost_rows_fail_the_verification(project, settings):
    function = "CREATE OR REPLACE FUNCTION changing(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT {} * $1'"
    query(settings, f"{function.format(1)}; CREATE INDEX damaged ON dag (changing(id)); {function.format(-1)}")
    label = creation.make(settings, print)
    figures = json.dumps({"revision": "a", "rows": {"dag": 2}})
    note = ("pgbackrest", "annotate", f"--set={label}", f"--annotation=airflow-ha-figures={figures}")
    result = data_tier.execute(container(settings, "backup"), *note)
    assert result.returncode == 0, result.stderr
    verify = ("env", "PYTHONPATH=/usr/local/lib/backup", "python3", "-c", VERIFY_NEWEST)
    result = data_tier.execute(container(settings, "backup"), *verify)
    newest = contents(project, settings).sets[-1]
    assert newest.verification, result
    found = [problem.partition(":")[0] for problem in newest.verification.problems]
    assert found == ["airflow.damaged", "dag has 1 rows, it had 2 at the backup"], newest.verification.problems
    query(settings, "DROP INDEX damaged")


def test_the_log_reaches_the_repository_within_its_interval(settings):
    postgres = container(settings, "postgres")
    archived = "SELECT archived_count FROM pg_stat_archiver"
    before = data_tier.ask(postgres, "psql", "-U", "postgres", "-Atc", f"CREATE TABLE t AS {archived}; {archived}")
    wait(lambda: data_tier.ask(postgres, "psql", "-U", "postgres", "-Atc", archived) != before.split()[-1], 15)


def test_another_passphrase_is_refused_with_a_hint(project, settings):
    place = repository.of_stack(project, settings, settings["BACKUP_IMAGE"])
    another = backup_config.pgbackrest(settings, {"backup_passphrase": "another"}, repository.PLACE)
    wrong = replace(place, configuration=another)
    with pytest.raises(StackError, match="another passphrase"):
        repository.contents(wrong)


def test_no_file_of_the_repository_holds_a_secret_in_clear(project, settings):
    secret = secrets_store.read(project, "fernet_key")
    place = repository.of_stack(project, settings, settings["BACKUP_IMAGE"])
    search = ("--entrypoint", "grep", f"--volume={place.source}:/repository:ro", place.image)
    found = docker("run", "--rm", "--user=0", "--network=none", *search, "-rlF", secret, "/repository")
    assert found.status == 1, found.output


def test_a_killed_backup_of_files_blocks_no_removal(settings):
    files = container(settings, "backup-files")
    killed = (
        "sleep 60 2>&1 | restic --no-cache backup --quiet --stdin & "
        "until restic --no-cache list locks --no-lock | grep -q .; do sleep 0.2; done; kill -9 $!"
    )
    removal = (
        "import sys; sys.path.insert(0, '/usr/local/lib/backup'); from backup_files import Service, storages\n"
        "files = storages(Service())['local']\n"
        f"files.service.run('sh', '-c', {killed!r}, environment=files.environment)\n"
        "files.restic('backup', '--quiet', '--tag=lost', '/etc/hostname')\n"
        "files.remove_lost({'lost': files.snapshots()['lost']}, [])\n"
        "assert 'lost' not in files.snapshots()"
    )
    result = docker("exec", files, "python3", "-c", removal)
    assert result.status == 0, result.output


def query(settings, sql: str) -> str:
    postgres = container(settings, "postgres")
    wait(lambda: data_tier.ask(postgres, "psql", "-U", "postgres", "-Atc", "SELECT 1"))
    result = data_tier.execute(postgres, "psql", "-U", "postgres", "-Atqc", sql, "airflow")
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def planned(project, settings, at: datetime | None = None, **options) -> Restoration:
    place = repository.of_stack(project, settings, settings["BACKUP_IMAGE"])
    chosen = choose(repository.contents(place).sets, at, None, datetime.now(UTC))
    return Restoration(project, settings, place, chosen, at, is_exact=False, report=print, **options)


def switch(project, settings, restored: Restoration, script: str) -> None:
    """Exchange the databases as `restoration.exchanged` does, without Airflow."""
    compose.output(project, "rm", "--stop", "--force", "postgres", "backup")
    restored.in_volume(restored.tier.restored, script)
    compose.output(project, "up", "--detach", "--wait", "postgres")


def test_a_point_in_time_is_restored_beside_the_running_database(project, settings):
    query(settings, "CREATE TABLE past (at timestamptz DEFAULT clock_timestamp()); INSERT INTO past DEFAULT VALUES")
    time.sleep(1.1)
    at = datetime.now(UTC)
    time.sleep(1.1)
    query(settings, "INSERT INTO past DEFAULT VALUES")
    plan = planned(project, settings, at)
    restoration.restore_database(plan)
    assert query(settings, "SELECT count(*) FROM past") == "2", "the running database has not changed"

    switch(project, settings, plan, restored_database.SWITCH)
    assert query(settings, "SELECT count(*) FROM past") == "1"
    assert query(settings, "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'airflow'") == "f", "nothing can run yet"
    restoration.set_passwords(plan)
    restoration.start_archive(plan)
    restoration.finish(plan)
    assert query(settings, "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'airflow'") == "t"


def test_after_a_restore_the_new_timeline_gets_a_backup(project, settings):
    before = contents(project, settings).sets[-1]
    assert query(settings, "SELECT timeline_id FROM pg_control_checkpoint()") == "2"
    compose.output(project, "up", "--detach", "--wait", "postgres", "backup")
    wait(lambda: contents(project, settings).sets[-1] != before, 120)


def test_an_exchange_that_is_undone_keeps_the_former_database(project, settings):
    query(settings, "INSERT INTO past DEFAULT VALUES")
    plan = planned(project, settings)
    restoration.restore_database(plan)
    query(settings, "INSERT INTO past DEFAULT VALUES")
    switch(project, settings, plan, restored_database.SWITCH)
    assert query(settings, "SELECT count(*) FROM past") == "2", "everything until the restore"
    switch(project, settings, plan, restored_database.UNDO)
    assert query(settings, "SELECT count(*) FROM past") == "3"
    query(settings, "INSERT INTO past DEFAULT VALUES")
    restoration.restore_database(planned(project, settings))
    folders = docker("exec", container(settings, "postgres"), "ls", "/var/lib/postgresql/data").output.split()
    assert sorted(folders) == ["pgdata", "restored"]


def test_a_restore_after_a_killed_one_is_complete(project, settings):
    query(settings, "CREATE TABLE kept AS SELECT 1 AS n")
    plan = planned(project, settings)
    killed = multiprocessing.get_context("fork").Process(target=restoration.restore_database, args=(plan,))
    killed.start()
    engines = (
        "ps",
        "--quiet",
        f"--filter=name={repository.ENGINE}",
        f"--filter=volume={plan.name}_{plan.tier.restored}",
    )
    (engine,) = wait(lambda: docker(*engines).output.split())
    docker("pause", engine)
    killed.kill()
    restoration.restore_database(plan)
    docker("unpause", engine)
    docker("wait", engine)  # if it existed, it would fail now, and remove what is restored
    switch(project, settings, plan, restored_database.SWITCH)
    assert query(settings, "SELECT n FROM kept") == "1"
    switch(project, settings, plan, restored_database.UNDO)


def test_a_time_after_the_end_of_the_log_is_refused_and_leaves_nothing(project, settings, monkeypatch):
    monkeypatch.setattr(restoration, "send_log", lambda _: None)
    with pytest.raises(StackError, match="the log in the repository ends before it"):
        restoration.restore_database(planned(project, settings, datetime.now(UTC)))
    folders = docker("exec", container(settings, "postgres"), "ls", "/var/lib/postgresql/data").output.split()
    assert "restored" not in folders


def test_a_database_of_another_stack_is_refused(project, settings):
    plan = planned(project, settings)
    place = repository.of_stack(project, settings, settings["BACKUP_IMAGE"])
    saved, current = repository.contents(place).system_id, restoration.current_database(plan)
    restoration.check_same_database(plan, current, saved)
    with pytest.raises(StackError, match="of another database"):
        restoration.check_same_database(plan, current, "1")


def test_a_folder_whose_backups_are_gone_gets_no_new_repository(project, settings):
    """As when the disk of BACKUP_FOLDER is not mounted."""
    compose.output(project, "up", "--detach", "--wait", "postgres", "backup")
    up = 'airflow_ha_backup_repository_up{repository="local"}'
    wait(lambda: metrics(settings, "backup").get(up) == 1.0)
    backup = container(settings, "backup")
    assert docker("exec", backup, "mv", "/var/lib/backup/pgbackrest", "/var/lib/backup/elsewhere").status == 0
    wait(lambda: metrics(settings, "backup")[up] == 0.0)
    with pytest.raises(StackError, match="its backups are gone"):
        creation.make(settings, print)
    assert docker("exec", backup, "ls", "/var/lib/backup/pgbackrest").status != 0, "nothing was created"
    assert docker("exec", backup, "mv", "/var/lib/backup/elsewhere", "/var/lib/backup/pgbackrest").status == 0
    wait(lambda: metrics(settings, "backup")[up] == 1.0)
    creation.make(settings, print)
