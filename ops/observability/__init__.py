"""Generated configuration of Prometheus and Alertmanager, and the contract on metric names."""
