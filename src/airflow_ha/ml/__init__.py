"""The machine-learning pipeline's steps: plain functions, one file a step.

A step takes and returns plain values and paths, keeps what it makes under the run's directory, and when
asked again finds its own work there (see `artifacts.once`). numpy and scikit-learn are imported inside the
functions: the dag-processor imports these modules every time it parses the DAG, and must stay quick.
"""
