"""Removal of what is old: rows of the databases, task logs, artifacts and objects of XComs.

It is a service and no DAG: a task has no log-in to the database and may not write to the folder of logs. Its limits are
settings and no Variables: a task may write every Variable, and could so delete the history and the logs of others.
"""
