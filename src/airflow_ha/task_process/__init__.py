"""What a worker grants one task's process, and what it does with what is left of it."""
