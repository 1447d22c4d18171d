"""`failover`: a planned failover of Postgres or Redis."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from ops import settings_file
from ops.compose import running_settings
from ops.errors import StackError, when_interrupted
from ops.failover import switch_postgres, switch_redis
from ops.lock import stack_lock
from ops.project import current_project
from ops.screen import report


class Target(StrEnum):
    """The services with a primary and replicas."""

    POSTGRES = "postgres"
    REDIS = "redis"


def failover(target: Annotated[Target, typer.Argument(help="The service whose primary changes.")]) -> None:
    """Promote a replica without data loss, and wait until the old primary follows it.

    Use it for maintenance, or to test failover. A primary that fails is replaced automatically. Requires the profile
    data-ha.

    Example: ./ops/stack failover postgres
    """
    project = current_project()
    settings = settings_file.read(project)
    if "data-ha" not in settings_file.profiles(settings):
        raise StackError(
            f"cannot fail over {target.value}: profile data-ha is off, so there is no replica",
            where=project.shown(project.env_file),
            hint="run ./ops/stack up --profile data-ha, with your other profiles",
        )
    switch = {Target.POSTGRES: switch_postgres, Target.REDIS: switch_redis}[target]
    hint = "run ./ops/stack status to see the primary"
    with when_interrupted(hint), stack_lock(project, "failover", report):
        running_settings(project)
        switch(settings["COMPOSE_PROJECT_NAME"], report)
