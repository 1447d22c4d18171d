"""What stays unhealthy is restarted, though Docker itself would leave it."""

from __future__ import annotations

from tests.stack import Stack, wait_until


def test_a_scheduler_that_hangs_is_restarted(healthy_stack: Stack):
    victim = healthy_stack.containers("scheduler")[0]
    main = victim.execute("cat", "/proc/1/task/1/children").stdout.split()[0]
    victim.execute("sh", "-c", f"kill -STOP {main}")
    started = victim.inspect()["State"]["StartedAt"]
    # Docker asks every 20 s, and each try may take 10 s; six failures in a row are the longest way to a SIGKILL.
    wait_until(
        lambda: victim.inspect()["State"]["StartedAt"] != started,
        timeout=300,
        what="the hanging scheduler was restarted",
        interval=2,
    )
    assert victim.inspect()["RestartCount"] >= 1
