"""The number of queued and running tasks, which a scheduler's container reads from the metadata database.

A scheduler reaches the database on every data tier, also an external one, and the next scheduler answers when one is
down. Prometheus is no source: its numbers are up to 40 s old, and the stack also runs without it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from ops import compose
from ops.autoscaling.decision import Demand
from ops.child_process import run_limited
from ops.data_tier import last_line
from ops.errors import FAILURE, StackError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ops.compose import Instance

ANSWER_SECONDS: Final = 10.0
"""Timeout of the answer: a second on 2 busy cores, most of it to start Python."""
MODULE: Final = "airflow_ha.queues.demand"


def read(by_service: Mapping[str, list[Instance]], queues: str) -> Demand:
    """Return the tasks of the queues.

    Args:
        by_service: The containers of the stack.
        queues: Names, separated by commas.

    Raises:
        StackError: No scheduler can count them.
    """
    reason = "no scheduler runs"
    for scheduler in compose.in_state(by_service, "running", ["scheduler"]):
        command = ["docker", "exec", scheduler.id, "python", "-m", MODULE, queues]
        try:
            result = run_limited(command, ANSWER_SECONDS, "count the tasks")
        except StackError as error:
            reason = error.what
            continue
        if result.returncode == 0:
            return Demand(**json.loads(result.stdout))
        reason = last_line(result.stderr)
    raise StackError(
        f"cannot count the tasks: {reason}", hint="run ./ops/stack status; no worker is added or removed", code=FAILURE
    )
