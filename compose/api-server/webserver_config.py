"""Settings of Flask AppBuilder (FAB), which keeps Airflow's users: https://flask-appbuilder.readthedocs.io/.

A password that is set in the UI has at least as many characters as one in secrets/.
"""

from airflow_ha.passwords import validate

FAB_PASSWORD_COMPLEXITY_ENABLED = True
FAB_PASSWORD_COMPLEXITY_VALIDATOR = validate
