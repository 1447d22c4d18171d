"""What `monitoring_dag` does every minute: look at Airflow through its REST API, find what is wrong, tell it.

`observe` looks, `checks` finds, `alerts` and `delivery` tell the Alertmanagers, `gauges` tells Prometheus, `memory` is
what one check knows of the last; `run` is all of it in order.
"""
