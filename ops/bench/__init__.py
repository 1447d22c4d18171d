"""The benches of `./ops/stack bench`: latency, throughput and CPU, beside a stock Airflow or another setting."""
