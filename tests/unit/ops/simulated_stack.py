"""A simulation of the containers of a stack, for code that changes them step by step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import chain, count
from typing import Any

import pytest

from ops import compose
from ops.compose import Instance

MODEL: dict[str, Any] = {
    "name": "airflow-ha",
    "services": {
        "postgres": {"restart": "always"},
        "redis": {"restart": "always"},
        "migrate": {"restart": "on-failure:5", "depends_on": {"postgres": {}}},
        "gateway": {"restart": "always"},
        "execution-api": {"restart": "always", "depends_on": {"postgres": {}, "migrate": {}}},
        "scheduler": {"restart": "always", "depends_on": {"postgres": {}, "migrate": {}, "redis": {}}},
        "worker": {
            "restart": "always",
            "depends_on": {"redis": {}, "gateway": {}, "execution-api": {}},
            "stop_grace_period": "10m0s",
        },
        "dag-processor": {"restart": "always", "depends_on": {"postgres": {}, "migrate": {}}},
    },
}
for name, service in MODEL["services"].items():
    service["deploy"] = {"replicas": 2 if name in ("execution-api", "scheduler", "worker") else 1}
    service["environment"] = {"AIRFLOW_HA_COMPONENT": name} if name not in ("postgres", "redis", "gateway") else {}


@dataclass
class SimulatedStack:
    """The containers by service, and the changes of them in their order.

    Attributes:
        model: The compose model.
        version: The version that new containers get; those of another version are outdated.
        failing: Services whose containers of `broken` do not become healthy.
        broken: The version in which they fail.
    """

    model: dict[str, Any]
    version: str = "old"
    failing: set[str] = field(default_factory=set)
    broken: str = ""
    containers: dict[str, list[Instance]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    numbers: Any = field(default_factory=lambda: count(1))
    fewest_running: dict[str, int] = field(default_factory=dict)

    def create(self, service: str) -> Instance:
        number = next(self.numbers)
        instance = Instance(id=f"{service}-{number}", state="created", health="starting", created=float(number))
        self.containers.setdefault(service, []).append(instance)
        self.versions[instance.id] = self.version
        return instance

    def set(self, identity: str, **attributes: Any) -> None:
        for service, instances in self.containers.items():
            self.containers[service] = [
                replace(each, **attributes) if each.id == identity else each for each in instances
            ]
            running = sum(each.state == "running" for each in self.containers[service])
            if self.containers[service]:
                self.fewest_running[service] = min(self.fewest_running.get(service, 99), running)

    def start_everything(self) -> None:
        for service, settings in self.model["services"].items():
            for _ in range(settings["deploy"]["replicas"]):
                self.start(self.create(service).id)
        self.changes.clear()
        self.fewest_running.clear()

    def start(self, identity: str) -> None:
        service = identity.rpartition("-")[0]
        fails = service in self.failing and self.versions[identity] == self.broken
        if service == "migrate":
            self.set(identity, state="exited", health="unhealthy" if fails else "done")
        else:
            self.set(identity, state="running", health="unhealthy" if fails else "healthy")
        self.changes.append(f"start {service} {self.versions[identity]}")

    def remove(self, identity: str) -> None:
        for service, instances in self.containers.items():
            self.containers[service] = [each for each in instances if each.id != identity]

    # ---- in place of the functions of ops.compose

    def outdated(self, *_: Any) -> set[str]:
        return {each.id for each in self.all() if self.versions[each.id] != self.version}

    def instances(self, *_: Any) -> dict[str, list[Instance]]:
        return {name: sorted(each, key=lambda one: one.created) for name, each in self.containers.items() if each}

    def stop(self, containers: list[str], seconds: int, *_: Any) -> None:
        for identity in containers:
            self.changes.append(f"stop {identity.rpartition('-')[0]} {self.versions[identity]} {seconds}")
            self.set(identity, state="exited", health="unhealthy")

    def run(self, _project: Any, _report: Any, *arguments: str) -> None:
        """Create what is missing, and recreate what is outdated, as `up --no-start` does."""
        *options, service = arguments
        assert options[:2] == ["up", "--no-start"]
        if "--no-recreate" not in options:
            for identity in [each.id for each in self.containers.get(service, [])]:
                if self.versions[identity] != self.version:
                    self.remove(identity)
        while len(self.containers.get(service, [])) < self.model["services"][service]["deploy"]["replicas"]:
            self.create(service)

    def docker(self, *arguments: str) -> str:
        command, *others = arguments
        for identity in others:
            if command == "start":
                self.start(identity)
            elif command == "rm" and not identity.startswith("--"):
                self.remove(identity)
        return ""

    def all(self) -> list[Instance]:
        return list(chain.from_iterable(self.containers.values()))

    def used(self) -> set[str]:
        """Return the versions of the containers that run."""
        running = [each.id for each in self.all() if each.state == "running"]
        return {self.versions[identity] for identity in running}


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> SimulatedStack:
    """A healthy stack of the version `old`."""
    stack = SimulatedStack(MODEL)
    stack.start_everything()
    for function in ("outdated", "instances", "stop", "run", "docker"):
        monkeypatch.setattr(compose, function, getattr(stack, function))
    monkeypatch.setattr(compose, "config", lambda *_: stack.model)
    return stack
