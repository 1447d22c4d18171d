"""The check that the schedulers' parallelism covers the slots of all workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ops.compose import expected_replicas

if TYPE_CHECKING:
    from collections.abc import Mapping

PARALLELISM: Final = "AIRFLOW__CORE__PARALLELISM"
CONCURRENCY: Final = "AIRFLOW__CELERY__WORKER_CONCURRENCY"
WORKER: Final = ("celery", "worker")


def shortage(model: Mapping[str, Any]) -> str | None:
    """Return a warning if the schedulers cannot fill every worker slot; None otherwise.

    Args:
        model: The compose model of the stack.
    """
    services: Mapping[str, Mapping[str, Any]] = model["services"]
    replicas = expected_replicas(model)
    slots = sum(
        replicas[name] * int(service["environment"][CONCURRENCY])
        for name, service in services.items()
        if is_worker(service)
    )
    if "scheduler" not in services:
        return None
    schedulers = replicas["scheduler"]
    parallelism = int(services["scheduler"].get("environment", {}).get(PARALLELISM) or 0)
    if not parallelism or schedulers * parallelism >= slots:
        return None
    return (
        f"{schedulers} schedulers can fill {schedulers * parallelism} of the workers' {slots} slots: "
        f"set PARALLELISM={-(-slots // schedulers)} or more in .env"
    )


def is_worker(service: Mapping[str, Any]) -> bool:
    """Return whether a service of the model runs a Celery worker."""
    words = [*(service.get("entrypoint") or []), *(service.get("command") or [])]
    return CONCURRENCY in service.get("environment", {}) and any(
        tuple(words[index : index + 2]) == WORKER for index in range(len(words))
    )
