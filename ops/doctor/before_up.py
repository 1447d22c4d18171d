"""What the next `./ops/stack up` would refuse or report before it changes anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ops import docker_daemon, preflight
from ops.doctor.finding import Finding, Urgency

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ops.doctor.finding import Examined
    from ops.errors import StackError


@dataclass(frozen=True)
class BeforeUp:
    """The errors of the pre-flight, the advice on Docker's settings, and whether the stack runs."""

    problems: list[StackError]
    advice: str | None
    is_running: bool


def gather(examined: Examined) -> BeforeUp:
    """Return the results of the pre-flight."""
    problems = preflight.problems(examined.project, examined.settings)
    return BeforeUp(problems, docker_daemon.advice(), examined.is_running)


def refusals(before: BeforeUp) -> Iterator[Finding]:
    """Yield a finding for each refusal of `up`: urgent while nothing runs, because nothing can start."""
    urgency = Urgency.SOON if before.is_running else Urgency.URGENT
    for problem in before.problems:
        yield Finding(urgency, problem.where or "up", "the next up is refused", problem.what, problem.hint)


def advice(before: BeforeUp) -> Iterator[Finding]:
    """Yield a finding if Docker's settings differ from the advice."""
    if before.advice:
        yield Finding(Urgency.NOTE, "Docker daemon", "advice only", before.advice, "read ops/README.md, Docker daemon")
