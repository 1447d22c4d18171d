"""A registry of the consumed Celery queues: workers write it, schedulers read it (hold_unconsumed_queues.py)."""
