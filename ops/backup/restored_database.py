"""The database in a volume: restored beside the current one, then exchanged with it in one step, and back.

In the volume, Postgres has its data in `pgdata`. A restore writes `restored`, and the exchange keeps the former data in
`replaced` until the next restore or `restore forget` (replaced.py). The file `unfinished` exists from the exchange
until the stack runs on the restored database: as long as it does, `replaced` is the database to return to, also for a
restore that follows a killed one. The file has text if there was no database before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ops import backup_config, compose, preflight
from ops.backup import repository
from ops.errors import FAILURE, StackError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from ops.backup.repository import Repository
    from ops.backup.sets import BackupSet

ROOM: Final = 1.25
"""Disk space that a restore needs, in sizes of the database: the log since the backup comes on top."""
TARGET_MISSED: Final = b"recovery ended before configured recovery target was reached"
SET_ASIDE: Final = """
if [ -s unfinished ] || { [ -e unfinished ] && [ -d replaced ]; }; then rm -rf pgdata
elif [ -d pgdata ]; then rm -rf replaced; : > unfinished; mv -T pgdata replaced
else echo empty > unfinished
fi
"""
SWITCH: Final = f"{SET_ASIDE}mv -T restored pgdata\n"
UNDO: Final = """
[ -e unfinished ] || exit 0
if [ -s unfinished ]; then rm -rf pgdata
elif [ -d replaced ]; then rm -rf pgdata; mv -T replaced pgdata
fi
rm -f unfinished
"""
FINISH: Final = "rm -f unfinished"
FORGET: Final = f"{FINISH}; rm -rf replaced"


def of_etcd(script: str) -> str:
    """Return a script for a volume of etcd, whose folder has another name."""
    return script.replace("pgdata", "data")


def target_options(chosen: BackupSet, at: datetime | None, *, is_exact: bool) -> list[str]:
    """Return pgBackRest's options for a target.

    Args:
        chosen: The backup to start from.
        at: The time to restore; None for the end of the log.
        is_exact: Whether to restore the backup itself, without the log after it.
    """
    options = [f"--set={chosen.label}"]
    if is_exact:
        return [*options, "--type=immediate", "--target-action=promote"]
    if at:
        return [*options, "--type=time", f"--target={at:%Y-%m-%d %H:%M:%S.%f+00}", "--target-action=promote"]
    return options


def restore(source: Repository, volume: str, folder: Path, options: list[str], report: Callable[[str], None]) -> str:
    """Restore and recover a database into `restored`, and return the time of its last transaction; empty if unknown.

    Args:
        source: The repository.
        volume: The volume of Postgres' data.
        folder: compose/.
        options: Of target_options().
        report: Prints a line of progress.

    Raises:
        StackError: The restore or the recovery failed; the volume is as before.
    """
    mounts = {
        volume: backup_config.DATA,
        str(folder / "backup/restore.sh"): "/usr/local/bin/restore.sh:ro",
        str(folder / "postgres/airflow-ha.conf"): "/etc/postgresql/airflow-ha.conf:ro",
    }
    # That of a restore that was killed would remove this one's database when it ends.
    repository.remove_engines(volume)
    result = repository.run(
        source,
        repository.DATABASE_USER,
        *("bash", "/usr/local/bin/restore.sh", *options),
        options=[*(f"--volume={host}:{path}" for host, path in mounts.items()), "--shm-size=256m"],
        report=lambda seconds: report(f"restoring the database … {seconds:.0f} s"),
    )
    if result.returncode == 0:
        return result.stdout.decode().strip()
    if TARGET_MISSED in result.stderr:
        raise StackError(
            "cannot restore this time: the log in the repository ends before it",
            where="--at",
            hint="use an earlier time, or leave out --at to restore everything that the repository has",
            code=FAILURE,
        )
    raise repository.failure(
        "cannot restore the database", result, "fix the cause, then run this again; nothing was changed"
    )


def in_volume(image: str, volume: str, script: str) -> str:
    """Return the output of a shell script in the root of a volume of Postgres' data.

    Raises:
        StackError: The script failed.
    """
    place = (f"--volume={volume}:{backup_config.DATA}", f"--workdir={backup_config.DATA}")
    container = ("run", "--rm", "--network=none", *repository.RESTRICTIONS, f"--user={repository.DATABASE_USER}")
    return compose.docker(*container, *place, "--entrypoint=sh", image, "-euc", script)


def system_id(image: str, volume: str) -> str:
    """Return the identifier of the database in a volume; empty if it has none."""
    script = "[ ! -e pgdata/global/pg_control ] || LC_ALL=C pg_controldata pgdata"
    lines = in_volume(image, volume, script).splitlines()
    return next((line.split()[-1] for line in lines if line.startswith("Database system identifier")), "")


def check_room(image: str, volume: str, chosen: BackupSet, nodes: int) -> None:
    """Refuse a restore that would fill the disk of the volume, which replicas share.

    Raises:
        StackError: The disk has too little free space.
    """
    free = int(in_volume(image, volume, "df --output=avail --block-size=1 .").split()[-1])
    hint = "run ./ops/stack restore forget if an earlier restore kept a database, or docker system prune"
    preflight.check_free("restore beside the current database", int(chosen.size * ROOM * nodes), free, volume, hint)
