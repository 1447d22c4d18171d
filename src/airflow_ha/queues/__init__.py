"""Which of Celery's queues have a worker: announced by workers, read by schedulers (upstream/unconsumed_queue.py)."""
