"""What things cost, measured beside what they replace: run each as `python -m ops.bench.NAME`."""
