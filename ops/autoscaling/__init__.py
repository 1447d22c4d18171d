"""Autoscaling of the service `worker` on Docker, by the number of queued and running tasks."""
