"""Drills: a fault strikes the stack under a live load, and what it cost is counted. `./ops/stack drill`.

catalogue.py says which, faults.py how they strike, drill_dag.py is the load, ledger.py what it did, conduct.py the
course of one drill, ground.py where it is held, report.py the table, results.py what the README says of it. alarms.py
is about messages alone. tests/resilience holds the same drills.
"""
