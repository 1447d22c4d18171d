"""No fault of the single Postgres or the single Redis loses a task: both restart, and all work continues."""

from __future__ import annotations

from collections.abc import Callable

from ops.drills.catalogue import Drill
from ops.services import DEFAULT_PROFILES

PROFILES = DEFAULT_PROFILES
TARGETS_SINGLE_NODES = True


def test_drill_keeps_every_promise(drill: Drill, assert_promises_kept: Callable[[Drill], None]):
    assert_promises_kept(drill)
