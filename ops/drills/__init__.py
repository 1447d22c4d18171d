"""Drills: a fault strikes the stack under a live load, and what it cost is counted. `./ops/stack drill`.

catalogue.py says which, faults.py how they strike, drill_dag.py is the load, ledger.py what it did, conduct.py the
course of one drill, report.py the table.
"""
