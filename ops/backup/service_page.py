"""What the running backup services report on their pages (compose/backup/backup_service.py)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from ops import compose, data_tier
from ops.observability.generated_config import BACKUP_PORT
from ops.services import BACKUP_FILES, BACKUP_NODES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ops.compose import Instance

# The image has no curl.
PROGRAM: Final = (
    "import sys, urllib.request as r\n"
    f"print(r.urlopen('http://127.0.0.1:{BACKUP_PORT}/' + sys.argv[1], timeout=4).read().decode())"
)
DATABASE_SERVICES: Final = tuple(service for nodes in BACKUP_NODES.values() for service in nodes)


def metrics(by_service: Mapping[str, list[Instance]]) -> dict[str, float]:
    """Return the metrics of the services of the database; empty without the profile `backup`.

    Args:
        by_service: The containers of the stack.
    """
    pages = (page.splitlines() for page in answers(by_service, DATABASE_SERVICES, "metrics"))
    return {name: float(value) for page in pages for name, _, value in (line.rpartition(" ") for line in page if line)}


def problems(by_service: Mapping[str, list[Instance]]) -> dict[str, str]:
    """Return why the last backup in a storage failed, by storage; the database's reason comes before the files'.

    Args:
        by_service: The containers of the stack.
    """
    found: dict[str, str] = {}
    for page in answers(by_service, (BACKUP_FILES, *DATABASE_SERVICES), "problems"):
        found |= json.loads(page)
    return found


def answers(by_service: Mapping[str, list[Instance]], services: tuple[str, ...], page: str) -> Iterator[str]:
    """Yield a page of each service that answers."""
    for container in compose.in_state(by_service, "running", services):
        if answer := data_tier.ask(container.id, "python3", "-c", PROGRAM, page):
            yield answer
