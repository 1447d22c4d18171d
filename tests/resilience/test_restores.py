"""A lost database and a killed restore end with a working stack, within the promises, on each data tier and storage."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ops import settings_file
from ops.drills.restore_drills import (
    RESTORE_DRILLS,
    RestoreDrill,
    RestoredStack,
    prepare_restores,
    run_restore_drill,
)
from ops.screen import report
from tests.backup_stack import storage
from tests.own_stack import stack_for

pytestmark = pytest.mark.nightly

TIERS = {"single": "data", "replicated": "data-ha"}
STORAGES = {"volume": "local", "s3": "s3"}
GIB = 1.0
REPETITIONS = 2


@pytest.fixture(scope="module", params=[(tier, place) for tier in TIERS for place in STORAGES], ids="-".join)
def restored_stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestoredStack]:
    """A stack with backups and a database of GIB beside Airflow's."""
    tier, place = request.param
    profiles = (TIERS[tier], "backup")
    with (
        storage(STORAGES[place], tmp_path_factory.mktemp("s3")) as (settings, secrets),
        stack_for(request, tmp_path_factory, profiles=profiles, settings=settings, secrets=secrets) as stack,
        prepare_restores(stack.project, settings_file.read(stack.project), GIB, report) as prepared,
    ):
        yield prepared


@pytest.mark.parametrize("repetition", range(REPETITIONS))
@pytest.mark.parametrize("restore_drill", RESTORE_DRILLS, ids=[drill.name for drill in RESTORE_DRILLS])
def test_restore_keeps_every_promise(restored_stack: RestoredStack, restore_drill: RestoreDrill, repetition: int):
    assert run_restore_drill(restore_drill, restored_stack).broken == ()
