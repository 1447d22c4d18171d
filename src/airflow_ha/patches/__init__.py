"""Patches of Airflow, Celery and their libraries: one file a patch, listed in registry.py, applied by loader.py."""
