"""The checks of `monitoring_dag`: every minute, observe Airflow through its REST API and report findings.

`observe` reads Airflow, `checks` compares with the thresholds, and `alerts` and `alertmanager_client` send alerts.
`gauges` exports metrics, `check_state` passes state to the next check, and `check_run` calls all of them in order.
"""
