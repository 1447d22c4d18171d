"""No fault of the stack with its replicated data tier loses a task or runs one twice."""

from __future__ import annotations

from collections.abc import Callable

from ops.drills.catalogue import Drill

PROFILES = ("data-ha", "flower", "observability")
TARGETS_SINGLE_NODES = False


def test_drill_keeps_every_promise(drill: Drill, assert_promises_kept: Callable[[Drill], None]):
    assert_promises_kept(drill)
