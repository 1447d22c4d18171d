"""Backups and their restore: the repository, its sets, and the change to a restored database."""
