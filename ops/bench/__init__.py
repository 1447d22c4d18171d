"""What things cost, measured beside what they replace: `./ops/stack bench`, and `python -m ops.bench.statsd_client`."""
