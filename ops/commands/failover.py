"""`failover`: a planned switch of the primary, of Postgres or of Redis."""

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
    """What has a primary."""

    POSTGRES = "postgres"
    REDIS = "redis"


def failover(target: Annotated[Target, typer.Argument(help="Whose primary changes.")]) -> None:
    """Make a replica the primary, without loss, and see the old primary follow it.

    For maintenance, and to see that it works: a primary that is lost is replaced without this.
    """
    project = current_project()
    settings = settings_file.read(project)
    if "data-ha" not in settings_file.profiles(settings):
        raise StackError(
            f"this stack has no replica of {target.value}: the profile data-ha is not on",
            where=project.shown(project.env_file),
            hint="./ops/stack up --profile data-ha (with the other profiles that you want)",
        )
    switch = {Target.POSTGRES: switch_postgres, Target.REDIS: switch_redis}[target]
    with when_interrupted("./ops/stack status shows who is the primary"), stack_lock(project, "failover", report):
        running_settings(project)
        switch(settings["COMPOSE_PROJECT_NAME"], report)
