"""Metrics of Airflow as tagged StatsD, and the project's own measurements through OpenTelemetry."""
