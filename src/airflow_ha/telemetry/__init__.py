"""What Airflow and this project tell about themselves: tagged StatsD, and OpenTelemetry for our own measurements."""
