"""How long child processes may take. One that takes longer is killed, and its command fails."""

from __future__ import annotations

from typing import Final

COMMAND: Final = 600.0
"""Seconds, for a command of docker or git: to delete a replaced database in a volume takes longest."""
STATEMENTS: Final = 7200.0
"""Seconds, for statements on the database: Postgres copies the files of 700 GB at 100 MB/s."""
AIRFLOW: Final = 1800.0
"""Seconds, for a command of Airflow on a restored database, which reads every unfinished run."""
ENGINE: Final = 86400.0
"""Seconds, for a backup or its restore: BACKUP_SECONDS of compose/backup/backup_service.py."""
ENDING: Final = 30.0
"""Seconds beyond a limit that is kept inside a container: Docker's time to start and remove it."""
EXCEEDED: Final = 124
"""The exit code of `timeout` for a command that it ended."""
