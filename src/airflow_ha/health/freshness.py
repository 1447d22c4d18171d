"""Limits of freshness, and the file of a worker's record, shared by the record and the probe."""

CONSUMPTION_FILE = "/tmp/consumption"  # noqa: S108 (the container's own tmpfs, of one user)
"""Its modification time is the time of the last record; its content is the consumed queues."""

STOPPING_FILE = "/tmp/stopping"  # noqa: S108
"""Exists while a worker finishes its tasks before it stops; start.sh removes it."""

CONSUMPTION_INTERVAL = 5.0
"""Seconds between two records."""

CONSUMPTION_MAX_AGE = 30.0
"""Seconds without a record after which a worker is unhealthy: six missed records."""

JOB_MAX_AGE = 30.0
"""Seconds without a heartbeat after which a job is unhealthy: six missed heartbeats of 5 s."""

MAINTENANCE_FILE = "/tmp/maintenance"  # noqa: S108
"""Its modification time is the last time at which maintenance worked or waited; its content is what holds it."""

MAINTENANCE_MAX_AGE = 6 * 3600.0
"""Seconds after which maintenance counts as hung: VACUUM of a large table is one statement."""
