"""The slots of all workers, and whether the schedulers' parallelism covers them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ops import worker_bounds
from ops.compose import expected_replicas

if TYPE_CHECKING:
    from collections.abc import Mapping

PARALLELISM: Final = "AIRFLOW__CORE__PARALLELISM"
CONCURRENCY: Final = "AIRFLOW__CELERY__WORKER_CONCURRENCY"
WORKER: Final = ("celery", "worker")


def raised_parallelism(model: Mapping[str, Any], settings: Mapping[str, str]) -> dict[str, str]:
    """Return PARALLELISM where autoscaling needs more of it: one scheduler alone fills the slots of the most workers.

    Args:
        model: The compose model with the settings.
        settings: Of .env.
    """
    limits = worker_bounds.bounds(settings)
    if limits is None or "scheduler" not in model["services"]:
        return {}
    needed = slots(model, {**expected_replicas(model), worker_bounds.SERVICE: limits.ceiling})
    return {"PARALLELISM": str(needed)} if needed > parallelism(model) else {}


def slots(model: Mapping[str, Any], replicas: Mapping[str, int]) -> int:
    """Return the slots of all workers.

    Args:
        model: The compose model.
        replicas: The instances of each service.
    """
    return sum(
        replicas[name] * int(service["environment"][CONCURRENCY])
        for name, service in model["services"].items()
        if is_worker(service)
    )


def parallelism(model: Mapping[str, Any]) -> int:
    """Return the tasks that a scheduler queues or runs at once; 0 if the model does not state it."""
    return int(model["services"]["scheduler"].get("environment", {}).get(PARALLELISM) or 0)


def shortage(model: Mapping[str, Any]) -> str | None:
    """Return a warning if the schedulers cannot fill every worker slot; None otherwise.

    Args:
        model: The compose model of the stack.
    """
    if "scheduler" not in model["services"]:
        return None
    replicas = expected_replicas(model)
    needed, schedulers = slots(model, replicas), replicas["scheduler"]
    if not parallelism(model) or schedulers * parallelism(model) >= needed:
        return None
    return (
        f"{schedulers} schedulers can fill {schedulers * parallelism(model)} of the workers' {needed} slots: "
        f"set PARALLELISM={-(-needed // schedulers)} or more in .env"
    )


def is_worker(service: Mapping[str, Any]) -> bool:
    """Return whether a service of the model runs a Celery worker."""
    words = [*(service.get("entrypoint") or []), *(service.get("command") or [])]
    return CONCURRENCY in service.get("environment", {}) and any(
        tuple(words[index : index + 2]) == WORKER for index in range(len(words))
    )
