"""The steps of the machine-learning pipeline: plain functions, one file per step.

A step takes and returns plain values and paths, writes its artifacts to the run's directory, and reuses them when it
runs again (`artifacts.once`). Functions import numpy and scikit-learn locally: the dag-processor imports these modules
at every parse of the DAG, and that must stay fast.
"""
