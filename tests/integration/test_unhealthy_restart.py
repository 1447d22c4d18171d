"""A container that stays unhealthy is restarted, which Docker does not do; one that is starved of CPU is not."""

from __future__ import annotations

import pytest

from tests.stack import Stack, docker, wait_until

FAILURES_IN_A_ROW = 4
"""More than restart-when-unhealthy.sh's limit of an API server, which is 3."""


@pytest.mark.nightly
def test_a_scheduler_that_hangs_is_restarted(healthy_stack: Stack):
    target = healthy_stack.containers("scheduler")[0]
    main = target.execute("cat", "/proc/1/task/1/children").stdout.split()[0]
    target.execute("sh", "-c", f"kill -STOP {main}")
    started = target.inspect()["State"]["StartedAt"]
    # Docker probes every 20 s, and each probe may take 10 s; a SIGKILL takes at most six failures in a row.
    wait_until(
        lambda: target.inspect()["State"]["StartedAt"] != started,
        timeout=300,
        what="the hanging scheduler was restarted",
        interval=2,
    )
    assert target.inspect()["RestartCount"] >= 1


@pytest.mark.nightly
def test_an_api_server_without_cpu_is_unhealthy_and_goes_on(healthy_stack: Stack):
    starved = healthy_stack.containers("api-server")[0]
    started = starved.inspect()["State"]["StartedAt"]
    # A third of a percent of a core: with a whole one an idle server still answers now and then.
    docker("update", "--cpu-period=1000000", "--cpu-quota=3000", starved.id)
    try:
        wait_until(
            lambda: starved.inspect()["State"]["Health"]["FailingStreak"] >= FAILURES_IN_A_ROW,
            timeout=300,
            what="the starved API server has failed its checks",
            interval=1,
        )
    finally:
        docker("update", "--cpu-quota=-1", starved.id)
    wait_until(
        lambda: starved.inspect()["State"]["Health"]["Status"] == "healthy",
        timeout=120,
        what="the API server is healthy once it gets CPU",
        interval=1,
    )
    assert starved.inspect()["State"]["StartedAt"] == started
