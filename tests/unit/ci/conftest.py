"""The fake `docker` of the image tests."""

from tests.unit.images.conftest import daemon

__all__ = ["daemon"]
