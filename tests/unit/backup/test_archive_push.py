"""The archive_command, with an engine in place of pgBackRest that takes the log for some storages."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "compose/backup/pgbackrest-archive-push.sh"
CONFIGURATION = "[global]\nrepo1-path=/a\nrepo1-cipher-pass=p\nrepo2-path=/b\nrepo2-s3-key=k\nlock-path=/tmp/x\n"
# Records the segment and the storage, and fails for the storages in DOWN.
ENGINE = """#!/bin/sh
for each; do case $each in --config=*) configuration=${each#--config=} ;; esac; done
number=$(sed -n 's/^repo\\([0-9]\\)-path=.*/\\1/p' "${configuration:-$PGBACKREST_CONFIG}")
for each; do segment=$each; done
case " $DOWN " in *" $number "*) exit 82 ;; esac
echo "$number ${segment##*/}" >>"$TAKEN"
"""


@pytest.fixture
def push(tmp_path: Path):
    """Return a function that sends the first of some segments, and returns the exit code and what was taken."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/pgbackrest").write_text(ENGINE)
    (tmp_path / "bin/pgbackrest").chmod(0o755)
    (tmp_path / "conf").write_text(CONFIGURATION)
    status = tmp_path / "pg_wal/archive_status"
    status.mkdir(parents=True)

    def run(waiting: int, down: str = "", configuration: str = CONFIGURATION) -> tuple[int, set[str]]:
        (tmp_path / "conf").write_text(configuration)
        for number in range(waiting):
            (status / f"{number:024X}.ready").touch()
        taken = tmp_path / "taken"
        taken.write_text("")
        environment = {
            "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
            "PGBACKREST_CONFIG": str(tmp_path / "conf"),
            "DOWN": down,
            "TAKEN": str(taken),
            "TMPDIR": str(tmp_path),
        }
        done = subprocess.run(
            ["sh", SCRIPT, f"pg_wal/{0:024X}", "3"], cwd=tmp_path, env=environment, capture_output=True, check=False
        )
        return done.returncode, {line.replace("0" * 22, "") for line in taken.read_text().splitlines()}

    return run


def test_every_storage_gets_what_waits(push):
    assert push(2) == (0, {"1 00", "1 01", "2 00", "2 01"})


@pytest.mark.parametrize(("down", "others"), [("2", {"1 00", "1 01"}), ("1", {"2 00", "2 01"})])
def test_a_storage_that_is_down_keeps_the_segment_but_not_the_other_storage(push, down, others):
    code, taken = push(2, down)
    assert code == 82
    assert taken <= others
    assert down == "1" or taken == others


def test_above_the_limit_one_storage_is_enough(push):
    assert push(4) == (0, {"1 00"})
    assert push(4, down="1") == (0, {"2 00"})


def test_above_the_limit_a_segment_that_no_storage_takes_is_dropped(push):
    assert push(3, down="1 2")[0] == 82
    assert push(4, down="1 2") == (0, set())


def test_with_one_storage_pgbackrest_decides(push):
    alone = CONFIGURATION.replace("repo2", "x")
    assert push(2, configuration=alone) == (0, {"1 00"})
    assert push(2, down="1", configuration=alone)[0] == 82
