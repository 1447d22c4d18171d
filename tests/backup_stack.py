"""A stack of the tests' own with backups on a volume, in S3, or in both.

    PYTHONPATH=src:. .venv/bin/python -m tests.backup_stack data,flower,observability local,s3

brings one up with these profiles and `backup`, prints how commands reach it, and removes it at Ctrl-C or SIGTERM. The
S3 server is tests/s3_server.py: over TLS, with a private authority and a log-in.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ops.project import ROOT
from ops.services import BACKUP
from tests.own_stack import own_stack
from tests.s3_server import s3_server


@contextmanager
def storage(names: str, folder: Path) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Provide storages, and yield a stack's settings and its operator's files for them.

    Args:
        names: A value of BACKUP_STORAGE; `s3` in it starts a server.
        folder: For the server's files.
    """
    settings = {"BACKUP_STORAGE": names}
    if "s3" not in names.split(","):
        yield settings, {}
        return
    with s3_server(folder) as server:
        yield settings | server.settings(), server.secrets()


def main(profiles: str, names: str) -> None:
    """Run a stack until a signal ends it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory() as folder:
        state, files = Path(folder, "stack"), Path(folder, "s3")
        for each in (state, files):
            each.mkdir()
        Path(folder).chmod(0o755)  # containers read the DAGs as another user
        with (
            storage(names, files) as (settings, secrets),
            own_stack(
                state,
                ROOT / "reports/backup_stack",
                profiles=(*profiles.split(","), BACKUP),
                settings=settings,
                secrets=secrets,
            ),
        ):
            print(f"\nexport STACK_STATE_DIR={state}  # then ./ops/stack …; kill {os.getpid()} removes it", flush=True)
            signal.pause()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:3])
    except KeyboardInterrupt:
        sys.exit(130)
