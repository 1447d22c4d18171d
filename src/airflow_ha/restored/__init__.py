"""The state of Airflow after its database was restored: what is held, settled, missed and verified.

After a restore nothing runs by surprise. `python -m airflow_ha.restored hold` runs before any scheduler starts:

- **DAGs.** Every unpaused DAG is paused and remembered (hold.py). Its triggers, time-outs and deadlines stand still. To
  unpause it, in whatever way, is to release it. DAG files that the restored past does not know start held too.
- **Tries that the restored past holds as queued or running** are settled by the rules in unfinished.py.
- **Runs between the restored time and now** are listed with what Airflow will do about them (missed_runs.py).

verification.py checks the restored database, before a restore gives up the replaced one, and in a throw-away stack.
"""
