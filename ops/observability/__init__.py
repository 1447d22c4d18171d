"""Configuration derived for Prometheus and Alertmanager, and the metrics that exist."""
