"""A finding of `doctor`, and the stack that is examined."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from ops.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ops.compose import Instance
    from ops.project import Project


class Urgency(StrEnum):
    """URGENT: work stops or data is at risk now. SOON: it will if nobody acts. NOTE: nothing to do, or not checked."""

    URGENT = "urgent"
    SOON = "soon"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One thing to know about the stack.

    Attributes:
        urgency: Its place in the list.
        object: What it concerns, such as a service, a task or a disk.
        state: What is wrong, in a few words.
        value: The figures.
        fix: The command, or an imperative sentence with one.
    """

    urgency: Urgency
    object: str
    state: str
    value: str
    fix: str


@dataclass(frozen=True)
class Examined:
    """The stack, with what several sources read.

    Attributes:
        project: The stack's folders.
        settings: The settings of .env over the defaults; empty if they are not valid.
        instances: The containers by service; empty while Docker does not answer.
        docker_answers: Whether this user can use Docker.
    """

    project: Project
    settings: Mapping[str, str] = field(default_factory=dict)
    instances: Mapping[str, list[Instance]] = field(default_factory=dict)
    docker_answers: bool = False

    @property
    def is_running(self) -> bool:
        """Whether any container of the stack runs."""
        return any(instance.state == "running" for instances in self.instances.values() for instance in instances)

    def container(self, service: str) -> str | None:
        """Return the id of a service's first running container; None if it has none."""
        running = (instance.id for instance in self.instances.get(service, ()) if instance.state == "running")
        return next(running, None)


class OutOfScopeError(StackError):
    """A source that this stack does not have, such as metrics without the profile `observability`."""
