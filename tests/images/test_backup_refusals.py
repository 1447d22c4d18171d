"""A storage on this machine that takes nothing, full or read-only: what is reported, and that nothing is lost."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from ops import backup_storage, compose, sample_database, settings_file
from ops.backup import creation, service_page
from ops.doctor import backups
from ops.doctor.finding import Examined, Urgency
from ops.errors import StackError
from ops.project import Project
from ops.services import BACKUP_VOLUME
from tests.docker_session import session_name
from tests.images.conftest import docker
from tests.images.test_backup import SERVICES, backup_project, container, contents, query, wait
from tests.images.test_backup_s3 import newest_log, write_log

# Two minutes; test_backup covers a storage that works in every run.
pytestmark = pytest.mark.nightly

SIZE = "200m"
ROWS = 200_000
"""Of 304 bytes, which take half of that in a backup: more than ROOM."""
ROOM = "20M"
FILLER = f"{backup_storage.FOLDER}/filler"
READ_ONLY = """services:
  {0}: &read-only
    volumes: [{{ type: volume, source: {1}, target: {2}, read_only: true }}]
  backup: *read-only
  backup-files: *read-only
"""


@pytest.fixture(scope="module")
def project(images, tmp_path_factory) -> Iterator[Project]:
    """A Postgres whose backups are on a small disk. It would be lost without a container that mounts it throughout."""
    name = f"{session_name()}-{uuid.uuid4().hex[:8]}"
    volume, holder = f"{name}_{BACKUP_VOLUME}", f"{name}-holder"
    labels = (f"--label=com.docker.compose.project={name}", f"--label=com.docker.compose.volume={BACKUP_VOLUME}")
    disk = ("--opt=type=tmpfs", "--opt=device=tmpfs", f"--opt=o=size={SIZE},mode=1777")
    state = tmp_path_factory.mktemp("state")
    assert docker("volume", "create", *labels, *disk, volume).status == 0
    mounted = ("run", "--detach", "--name", holder, f"--volume={volume}:{backup_storage.FOLDER}", "--user=999:999")
    assert docker(*mounted, "--entrypoint=sleep", images["BACKUP_IMAGE"].reference, "infinity").status == 0
    try:
        own = {"COMPOSE_PROJECT_NAME": name}
        with backup_project(state, images, "data,backup,backup-data", SERVICES, own) as project:
            yield project
            docker("rm", "--force", holder)
    finally:
        docker("rm", "--force", holder)
        docker("volume", "rm", "--force", volume)


@pytest.fixture
def settings(project) -> dict[str, str]:
    return settings_file.read(project)


@pytest.fixture(autouse=True)
def stored(project, settings) -> None:
    """The storage has a set."""

    def is_stored() -> bool:
        try:
            return bool(contents(project, settings).sets[-1].files)
        except StackError:
            return False

    wait(is_stored, 120)


def on_disk(settings, script: str) -> None:
    docker("exec", f"{settings['COMPOSE_PROJECT_NAME']}-holder", "sh", "-c", script)


def assert_refused(project, settings, reason: str, hint: str) -> str:
    """Check that each command names storage, reason and what to do; return the segment of the log that waits."""
    segment = write_log(settings)
    with pytest.raises(StackError) as error:
        creation.make(settings, print)
    assert (reason in error.value.what, hint in error.value.hint) == (True, True), error.value
    assert error.value.where == backup_storage.LOCAL_PLACE
    examined = Examined(project, settings, compose.instances(settings["COMPOSE_PROJECT_NAME"]))
    wait(lambda: service_page.problems(examined.instances))
    (finding,) = backups.storages(backups.gather(examined))
    assert (finding.urgency, finding.object) == (Urgency.URGENT, "backups in local")
    assert (reason in finding.value, hint in finding.fix) == (True, True), finding
    assert contents(project, settings).sets, "what was stored can be read"
    return segment


def assert_recovers(project, settings, segment: str) -> None:
    """Check that the log which waited is stored, and that backups are made again."""
    wait(lambda: newest_log(settings, "local") >= segment, 180)
    wait(lambda: not service_page.problems(compose.instances(settings["COMPOSE_PROJECT_NAME"])), 60)
    label = creation.make(settings, print)
    newest = contents(project, settings).sets[-1]
    assert (newest.label, bool(newest.files)) == (label, True)


def reports_of_archive(settings) -> str:
    return docker("logs", "--tail=50", container(settings, "postgres")).output


def test_full_disk_is_named_and_the_log_waits(project, settings):
    on_disk(settings, f"cat /dev/zero >{FILLER}")
    segment = assert_refused(project, settings, "its disk is full", "BACKUP_KEEP")
    wait(lambda: "No space left on device" in reports_of_archive(settings))
    wait(lambda: "hint: pg_wal/" in reports_of_archive(settings), 120)
    on_disk(settings, f"rm {FILLER}")
    assert_recovers(project, settings, segment)


def test_backup_that_fills_the_disk_fails_and_the_next_one_is_complete(project, settings):
    query(settings, sample_database.FILL.format(text=sample_database.TEXT, rows=ROWS))
    segment = write_log(settings)
    wait(lambda: newest_log(settings, "local") >= segment, 120)
    on_disk(settings, f"cat /dev/zero >{FILLER}; truncate --size=-{ROOM} {FILLER}")
    with pytest.raises(StackError, match=r"unable to write|No space left on device") as error:
        creation.make(settings, print)
    assert "BACKUP_KEEP" in error.value.hint
    on_disk(settings, f"rm {FILLER}")
    assert_recovers(project, settings, write_log(settings))


def test_read_only_disk_is_named_and_the_log_waits(project, settings):
    override = project.state / "compose.override.yaml"
    override.write_text(READ_ONLY.format("postgres", BACKUP_VOLUME, backup_storage.FOLDER))
    compose.output(project, "up", "--detach", "--wait", *SERVICES)
    segment = assert_refused(project, settings, "its disk is read-only", "./ops/stack restart")
    wait(lambda: "Read-only file system" in reports_of_archive(settings))
    override.unlink()
    compose.output(project, "up", "--detach", "--wait", *SERVICES)
    assert_recovers(project, settings, segment)
