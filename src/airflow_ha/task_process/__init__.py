"""Limits of one task's process, its scratch folder, and the cleanup after it exits."""
