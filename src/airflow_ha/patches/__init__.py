"""Patches of Airflow, Celery and their libraries. README.md lists them; registry.py holds their rows."""
