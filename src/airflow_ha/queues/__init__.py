"""Which of Celery's queues have a worker: announced by workers, read by schedulers (hold_unconsumed_queues.py)."""
