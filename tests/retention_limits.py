"""Limits of retention for tests: no limit by size or by the disk's use."""

from airflow_ha.maintenance.retention import Limits

LIMITS = Limits(
    hour=4,
    runs_days=90,
    monitoring_days=7,
    audit_days=365,
    logs_days=30,
    logs_bytes=0,
    disk_percent=100,
    artifacts_days=90,
    models=10,
)
