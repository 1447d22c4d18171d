"""Settings of Flask AppBuilder (FAB), which keeps Airflow's users: https://flask-appbuilder.readthedocs.io/.

A password that is set in the UI has at least as many characters as one in secrets/. With single sign-on users log in at
its provider.
"""

from pathlib import Path

from airflow_ha import single_sign_on
from airflow_ha.passwords import validate

FAB_PASSWORD_COMPLEXITY_ENABLED = True
FAB_PASSWORD_COMPLEXITY_VALIDATOR = validate
globals().update(single_sign_on.settings(Path("/run/secrets/oidc.json")))
