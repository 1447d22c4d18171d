"""The exchange of databases in a volume, also when a restore is killed before any of its commands."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ops.backup.restored_database import FINISH, FORGET, SET_ASIDE, SWITCH, UNDO, of_etcd

KILLED = 9
COMMANDS = 8
"""More than SWITCH runs, so that the last case is a complete one."""


def run(folder: Path, script: str, commands: int | None = None) -> int:
    """Run a script in a volume, killed before the command of this number; return its exit code."""
    limit = "" if commands is None else f"n=0; trap '[ $((n++)) -lt {commands} ] || exit {KILLED}' DEBUG\n"
    return subprocess.run(["bash", "-euc", limit + script], cwd=folder, check=False).returncode


def restore(folder: Path, name: str) -> None:
    """Put a restored database beside the current one, as restore.sh does."""
    shutil.rmtree(folder / "restored", ignore_errors=True)
    database(folder / "restored", name)


def database(folder: Path, name: str) -> None:
    folder.mkdir()
    (folder / "name").write_text(name)


def name_in(folder: Path) -> str:
    return (folder / "name").read_text()


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A volume with a database, the one before it, and a restored one."""
    database(tmp_path / "pgdata", "former")
    database(tmp_path / "replaced", "older")
    restore(tmp_path, "restored")
    return tmp_path


def test_exchange_keeps_the_former_database(volume):
    assert run(volume, SWITCH) == 0
    assert (name_in(volume / "pgdata"), name_in(volume / "replaced")) == ("restored", "former")


@pytest.mark.parametrize("commands", range(COMMANDS))
def test_killed_exchange_is_undone(volume, commands):
    assert run(volume, SWITCH, commands) in (0, KILLED)
    assert run(volume, UNDO) == 0
    assert name_in(volume / "pgdata") == "former"
    assert not (volume / "unfinished").exists()


@pytest.mark.parametrize("commands", range(COMMANDS))
def test_restore_after_a_killed_one_returns_to_the_former_database(volume, commands):
    assert run(volume, SWITCH, commands) in (0, KILLED)
    restore(volume, "second")
    assert run(volume, SWITCH) == 0
    assert name_in(volume / "pgdata") == "second"
    assert run(volume, UNDO) == 0
    assert name_in(volume / "pgdata") == "former"


@pytest.mark.parametrize("commands", range(COMMANDS))
def test_killed_return_is_completed_by_the_next(volume, commands):
    assert run(volume, SWITCH) == 0
    assert run(volume, UNDO, commands) in (0, KILLED)
    assert run(volume, UNDO) == 0
    assert name_in(volume / "pgdata") == "former"


def test_complete_restore_is_kept_by_the_next(volume):
    assert run(volume, SWITCH + FINISH) == 0
    restore(volume, "second")
    assert run(volume, SWITCH) == 0
    assert run(volume, UNDO) == 0
    assert name_in(volume / "pgdata") == "restored"


@pytest.mark.parametrize("commands", range(COMMANDS))
def test_empty_volume_is_empty_after_the_return(tmp_path, commands):
    restore(tmp_path, "restored")
    assert run(tmp_path, SWITCH, commands) in (0, KILLED)
    restore(tmp_path, "second")
    assert run(tmp_path, SWITCH) == 0
    assert run(tmp_path, UNDO) == 0
    assert list(tmp_path.iterdir()) == []


def test_replica_set_aside_twice_keeps_its_former_data(tmp_path):
    database(tmp_path / "pgdata", "former")
    assert run(tmp_path, SET_ASIDE) == 0
    database(tmp_path / "pgdata", "copy of the restored database")
    assert run(tmp_path, SET_ASIDE) == 0
    assert run(tmp_path, UNDO) == 0
    assert name_in(tmp_path / "pgdata") == "former"


def test_record_of_etcd_returns_or_goes(tmp_path):
    database(tmp_path / "data", "former")
    assert run(tmp_path, of_etcd(SET_ASIDE)) == 0
    database(tmp_path / "data", "new")
    assert run(tmp_path, of_etcd(UNDO)) == 0
    assert name_in(tmp_path / "data") == "former"
    assert run(tmp_path, of_etcd(SET_ASIDE)) == 0
    database(tmp_path / "data", "newer")
    assert run(tmp_path, of_etcd(FORGET)) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
