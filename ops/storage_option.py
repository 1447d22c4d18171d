"""The option `--from STORAGE` of the commands that restore a backup."""

from __future__ import annotations

from typing import Annotated

import typer

from ops import backup_storage


def known(name: str | None) -> str | None:
    """Return the name of a storage; None is for all.

    Raises:
        StackError: No storage has the name.
    """
    backup_storage.check_name(name)
    return name


FromStorage = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="STORAGE",
        help=f"Restore from this storage, {' or '.join(backup_storage.NUMBERS)}; by default the first that has the "
        "backup.",
        show_default=False,
        callback=known,
    ),
]
