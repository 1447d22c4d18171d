"""HTTP APIs of services that operating the stack needs."""
