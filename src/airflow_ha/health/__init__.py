"""Health checks of one container, cheap enough for every ten seconds and accurate enough to restart on.

`python -m airflow_ha.health` is the probe (`__main__`); `consumption_record` is a Celery worker's own record. Nothing
here imports Airflow: `airflow jobs check` and `celery inspect ping` cost about 3.5 s of CPU each time.
"""
