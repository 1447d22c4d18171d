"""A Postgres and a Redis that are one of each lose nothing either: they are back, and so is everything."""

from __future__ import annotations

from collections.abc import Callable

from ops.drills.catalogue import Drill
from ops.services import DEFAULT_PROFILES

PROFILES = DEFAULT_PROFILES
OF_SINGLE_NODES = True


def test_every_promise_is_kept(drill: Drill, assert_kept: Callable[[Drill], None]):
    assert_kept(drill)
