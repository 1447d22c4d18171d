"""Whether schedulers may start as many tasks as the workers of all services have slots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ops.compose import expected_replicas

if TYPE_CHECKING:
    from collections.abc import Mapping

PARALLELISM: Final = "AIRFLOW__CORE__PARALLELISM"
CONCURRENCY: Final = "AIRFLOW__CELERY__WORKER_CONCURRENCY"
WORKER: Final = ("celery", "worker")


def shortage(model: Mapping[str, Any]) -> str | None:
    """Return what to tell the operator when some slots would stay empty; None when none would.

    Args:
        model: The stack as compose sees it.
    """
    services: Mapping[str, Mapping[str, Any]] = model["services"]
    wanted = expected_replicas(model)
    slots = sum(
        wanted[name] * int(service["environment"][CONCURRENCY])
        for name, service in services.items()
        if is_worker(service)
    )
    if "scheduler" not in services:
        return None
    schedulers = wanted["scheduler"]
    parallelism = int(services["scheduler"].get("environment", {}).get(PARALLELISM) or 0)
    if not parallelism or schedulers * parallelism >= slots:
        return None
    return (
        f"the workers have {slots} slots, and {schedulers} schedulers may fill {schedulers * parallelism} of them: "
        f"set PARALLELISM={-(-slots // schedulers)} in .env, or more"
    )


def is_worker(service: Mapping[str, Any]) -> bool:
    """Whether a service of the model runs a Celery worker."""
    line = [*(service.get("entrypoint") or []), *(service.get("command") or [])]
    return CONCURRENCY in service.get("environment", {}) and any(
        tuple(line[place : place + 2]) == WORKER for place in range(len(line))
    )
