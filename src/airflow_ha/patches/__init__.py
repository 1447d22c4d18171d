"""Faults of Airflow and Celery that we work round: one file a fault, with its issue's link and when it can go."""
