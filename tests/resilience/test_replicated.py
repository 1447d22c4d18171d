"""Whatever strikes the stack with its replicated data tier, no task is lost and none runs twice."""

from __future__ import annotations

from collections.abc import Callable

from ops.drills.catalogue import Drill

PROFILES = ("data-ha", "flower", "observability")
OF_SINGLE_NODES = False


def test_every_promise_is_kept(drill: Drill, assert_kept: Callable[[Drill], None]):
    assert_kept(drill)
