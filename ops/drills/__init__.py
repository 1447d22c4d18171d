"""Drills inject a fault into a stack under live load and count what it cost: `./ops/stack drill`.

catalogue.py lists the drills, faults.py injects and reverts faults, drill_dag.py is the load, and ledger.py records its
tasks' events. runner.py runs one drill on a stack of environments.py, and evaluate.py compares it with the promises.
report.py is the table of one command; results.py keeps the recorded results (RESULTS.md). alert_drills.py measures
notifications only. restore_drills.py deletes the database or kills a restore; restore_results.py keeps the results
(ops/README.md). tests/resilience runs the same drills.
"""
