"""Metrics of Airflow as tagged StatsD, and our own measurements through OpenTelemetry."""
