"""Maintenance in a running stack: a new stack needs no operator, and what goes is shown first, and counted."""

from __future__ import annotations

from functools import partial

from ops.bench import maintenance_load
from tests.stack import Stack, wait_until

REMOVED = 'sum(airflow_ha_maintenance_removed_total{kind="runs"})'
SINCE_SUCCESS = "time() - max(airflow_ha_maintenance_last_success_timestamp_seconds)"


def test_an_old_history_is_shown_removed_and_counted(healthy_stack: Stack):
    stack = healthy_stack
    (container,) = stack.containers("maintenance")
    value = stack.prometheus.value
    (service,) = [each for each in stack.status()["services"] if each["name"] == "maintenance"]
    assert service["instances"][0]["waits_for"] == ""
    wait_until(partial(value, SINCE_SUCCESS), timeout=120, what="the first run is reported")
    before = value(REMOVED) or 0.0
    try:
        maintenance_load.execute(container.id, "create", "200", "50")
        shown = stack.command("maintenance", "--dry-run").stdout
        assert "runs: 2\n" in shown
        assert "logs: 50 (" in shown
        assert "runs: 2\n" in stack.command("maintenance", "--dry-run").stdout  # nothing went
        assert "runs: 2\n" in stack.command("maintenance", "--yes").stdout
        assert "\nruns: 0\n" in stack.command("maintenance", "--dry-run").stdout
    finally:
        maintenance_load.execute(container.id, "remove")
    wait_until(lambda: value(REMOVED) == before + 2, timeout=60, what="the removed runs are counted")
