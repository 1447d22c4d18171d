"""Airflow HA: what runs inside Airflow. Each package is one concern; see the folder's own docstring."""
