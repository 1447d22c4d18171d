"""Health of one container, seen from inside it: cheap enough to ask every ten seconds, true enough to restart for.

`python -m airflow_ha.health` is the probe (see `__main__`); `consumption` is the record that a Celery worker keeps.
Nothing here imports Airflow: `airflow jobs check` and `celery inspect ping` cost about 3.5 s of CPU each time.
"""
