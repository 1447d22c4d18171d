"""One real stack for all integration tests.

The stack needs no overlay of the compose files: ports, project name and DAG folder are settings of .env that users have
too, and the default intervals are short enough. A stack without a webhook has a Slack stub of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.own_stack import stack_for
from tests.stack import Stack, wait_until


# The scope is not the session: tests of other folders start their own stack after this one is removed.
@pytest.fixture(scope="package")
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Provide a healthy stack with the DAGs of dags/ and of tests/integration/dags/."""
    # A limit that a test can reach without filling the machine's disk, above an ordinary file of 1.2 GB.
    settings = {"TASK_SCRATCH_LIMIT": "1500m"}
    dags = Path(__file__).parent / "dags"
    with stack_for(request, tmp_path_factory, dags=dags, settings=settings, by_hand=True) as stack:
        yield stack


@pytest.fixture
def healthy_stack(stack: Stack) -> Iterator[Stack]:
    """Wait until the stack is healthy before and after the test: tests cannot affect each other."""
    wait_until(stack.ready, timeout=240, what="every service is healthy")
    yield stack
    wait_until(stack.ready, timeout=240, what="every service is healthy again")
