"""The same Airflow on Kubernetes: values of the official chart and the manifests beside it, from the compose files."""
