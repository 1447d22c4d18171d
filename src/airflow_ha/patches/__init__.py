"""Patches of Airflow, Celery and their libraries: README.md has the table, registry.py what each was written for."""


class SettingError(ValueError):
    """A setting with which a component must not start: a promise would not hold, and nobody would notice."""
