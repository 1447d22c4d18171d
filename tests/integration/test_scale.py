"""Services scale up and down while they work."""

from __future__ import annotations

import pytest

from tests.stack import Stack, wait_until


def test_workers_scale_under_load_without_a_lost_try(healthy_stack: Stack):
    run = healthy_stack.api.trigger("load", tasks=60, seconds=5)
    healthy_stack.command("scale", "worker=3")
    assert len(healthy_stack.containers("worker")) == 3
    newest = healthy_stack.containers("worker")[-1]
    wait_until(
        lambda: any(ti["hostname"] == newest.id[:12] for ti in healthy_stack.api.task_instances("load", run, "work")),
        timeout=90,
        what="the new worker has taken a task",
    )
    healthy_stack.command("scale", "worker=2")
    assert len(healthy_stack.containers("worker")) == 2
    assert healthy_stack.api.wait_for_run("load", run, timeout=180) == "success"
    tries = [ti["try_number"] for ti in healthy_stack.api.task_instances("load", run, "work")]
    assert tries == [1] * 60


# The test above scales workers in every run, by the same command.
@pytest.mark.nightly
@pytest.mark.parametrize("service", ["scheduler", "api-server", "execution-api", "triggerer"])
def test_a_service_scales_up_and_back(healthy_stack: Stack, service: str):
    before = len(healthy_stack.containers(service))
    healthy_stack.command("scale", f"{service}={before + 1}")
    assert len(healthy_stack.containers(service)) == before + 1
    healthy_stack.command("scale", f"{service}={before}")
    assert len(healthy_stack.containers(service)) == before


# tests/unit/ops has every invalid argument.
@pytest.mark.parametrize("wanted", ["worker=0", "postgres=2"])
def test_an_invalid_scale_is_refused_and_changes_nothing(stack: Stack, wanted: str):
    before = [container.id for container in stack.containers()]
    result = stack.command("scale", wanted, check=False)
    assert result.returncode == 2
    assert [container.id for container in stack.containers()] == before
