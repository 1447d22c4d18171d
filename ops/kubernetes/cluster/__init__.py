"""A Kubernetes cluster of several nodes on this machine, for tests. It leaves nothing behind."""
