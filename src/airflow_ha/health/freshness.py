"""What counts as fresh, and where a worker writes it: shared by the record and the probe that reads it."""

CONSUMPTION_FILE = "/tmp/consumption"  # noqa: S108 (the container's own tmpfs, of one user)
"""Its modification time is when the worker last was seen consuming; its content, the queues."""

CONSUMPTION_INTERVAL = 5.0
"""Seconds between two records."""

CONSUMPTION_MAX_AGE = 30.0
"""Seconds after which a worker that made no record is unhealthy: six records missed."""

JOB_MAX_AGE = 30.0
"""Seconds after which a job without heartbeat is unhealthy: six of its 5 s heartbeats missed."""
