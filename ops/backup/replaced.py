"""The database that a restore replaced: it stays beside the restored one until the next restore or `restore forget`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from airflow_ha.sizes import MIB
from ops import backup_config, compose, data_tier
from ops.errors import FAILURE, StackError
from ops.services import POSTGRES_NODES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ops.compose import Instance

COMMAND: Final = "./ops/stack restore forget"
SIZE: Final = ("du", "--summarize", "--block-size=1", f"{backup_config.DATA}/replaced")
UNFINISHED: Final = ("ls", f"{backup_config.DATA}/unfinished")
DELETE: Final = f"cd {backup_config.DATA} && [ ! -e unfinished ] && rm -rf replaced"


def sizes(by_service: Mapping[str, list[Instance]]) -> dict[str, int]:
    """Return the bytes of the replaced database by container; those that keep none are left out.

    Args:
        by_service: The containers of the stack.
    """
    answers = {node.id: data_tier.ask(node.id, *SIZE) for node in nodes(by_service)}
    return {container: int(answer.split()[0]) for container, answer in answers.items() if answer}


def shown(kept: Mapping[str, int]) -> str:
    """Return the space that they take together."""
    return f"{sum(kept.values()) / MIB:,.0f} MiB"


def refuse_only_way_back(by_service: Mapping[str, list[Instance]]) -> None:
    """Refuse to delete the database that a restore may have to return to.

    Raises:
        StackError: A restore has not ended.
    """
    if is_only_way_back(by_service):
        raise StackError(
            "cannot delete the replaced database: the restore has not ended, and may have to return to it",
            hint="run ./ops/stack restore again",
        )


def is_only_way_back(by_service: Mapping[str, list[Instance]]) -> bool:
    """Return whether a restore has not ended, so that the next one may have to return to the replaced database."""
    return any(data_tier.ask(node.id, *UNFINISHED) for node in nodes(by_service))


def nodes(by_service: Mapping[str, list[Instance]]) -> list[Instance]:
    """Return the running containers that mount a volume of Postgres as their own."""
    return compose.in_state(by_service, "running", ("postgres", *POSTGRES_NODES))


def delete(by_service: Mapping[str, list[Instance]]) -> None:
    """Delete the replaced database on every node.

    Raises:
        StackError: A node refuses it.
    """
    for container in sizes(by_service):
        result = data_tier.execute(container, "sh", "-c", DELETE)
        if result.returncode != 0:
            raise StackError(
                f"cannot delete the replaced database: {data_tier.last_line(result.stderr)}",
                where=f"{backup_config.DATA}/replaced in container {container}",
                hint="run ./ops/stack doctor, which states whether a restore has not ended",
                code=FAILURE,
            )
