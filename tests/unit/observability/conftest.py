"""The fixtures `project` and `docker` of the commands' tests."""

from tests.unit.ops.conftest import docker, project

__all__ = ["docker", "project"]
