"""Checks and reports that the workflows on GitHub run."""
