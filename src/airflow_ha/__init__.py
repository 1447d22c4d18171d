"""Code that runs inside Airflow, one package per concern."""
