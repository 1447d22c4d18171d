"""Patches of Airflow, Celery and their libraries: README.md has the table, registry.py what each was written for."""
