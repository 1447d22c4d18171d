"""Faults: each is injected into given containers, or into the machine, and reverted. Nothing else is touched."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Literal

from ops import compose
from ops.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FaultKind = Literal["crash", "kill", "stop", "freeze", "cut", "slow", "starve", "replace"]

MEANING: dict[FaultKind, str] = {
    "crash": "SIGKILL to the main process; Docker restarts the container at once",
    "kill": "SIGKILL to the container, which stays down",
    "stop": "graceful stop of the container, which stays down",
    "freeze": "all processes of the container are paused (docker pause)",
    "cut": "the container loses all its networks",
    "slow": "each packet that the container sends is delayed by 200 ms, and 5% of them are lost",
    "starve": "another container takes 90% of the machine's CPU",
    "replace": "containers are replaced one at a time by those of another image of the same version, and back",
}
NETEM_OPTIONS = ("delay", "200ms", "loss", "5%")
STARVED_FRACTION = 0.9
"""The part of the machine's CPU that `starve` takes."""
LARGEST_WEIGHT = "262144"
"""Docker's largest `--cpu-shares`, 256 times the default: its container gets all that its quota allows."""
LONGEST_STARVATION = 900
"""Seconds after which the CPU burner exits by itself, so that it ends even if the drill was killed."""


def require_support(kind: FaultKind) -> None:
    """Check that this machine supports a fault.

    Raises:
        StackError: The fault needs root on the Linux machine that Docker runs on, or a kernel module that is missing.
    """
    if kind in ("crash", "slow") and (sys.platform != "linux" or os.geteuid() != 0):
        raise StackError(
            f"cannot inject {kind}: it needs root on the Linux machine that Docker runs on",
            hint="run this as root on that machine",
        )
    if kind == "slow" and (error := netem_error()):
        raise StackError(
            f"cannot inject slow: {error}", hint="install iproute2 and a kernel that has the module sch_netem"
        )


def inject(kind: FaultKind, containers: Sequence[str], image: str = "") -> Callable[[], None]:
    """Inject a fault into all containers at once, and return the function that reverts it.

    Args:
        kind: see MEANING.
        containers: Docker's ids of the targets; empty where the target is the machine.
        image: An image with a shell, for the container that burns CPU.
    """
    match kind:
        case "crash":
            for process in [main_process(container) for container in containers]:
                os.kill(process, 9)
            return lambda: None
        case "kill":
            compose.docker("kill", *containers)
            return lambda: _start(containers)
        case "stop":
            compose.docker("stop", *containers)
            return lambda: _start(containers)
        case "freeze":
            try:
                compose.pause(containers)
            except StackError:
                _unpause(containers)
                raise
            return lambda: _unpause(containers)
        case "cut":
            networks = {each["Id"]: each["NetworkSettings"]["Networks"] for each in compose.inspect(list(containers))}
            for container, networks_of_container in networks.items():
                for network in networks_of_container:
                    compose.docker("network", "disconnect", "--force", network, container)
            return lambda: _reconnect(networks)
        case "slow":
            processes = [main_process(container) for container in containers]
            for process in processes:
                for interface in interfaces(process):
                    _netem(process, "add", interface, *NETEM_OPTIONS)
            return lambda: _remove_delay(processes)
        case "starve":
            burner = _start_cpu_burner(image)
            return lambda: _remove(burner)
        case "replace":
            raise ValueError("it needs the stack: ops/drills/image_change.py")


def netem_error() -> str:
    """Return why this machine cannot delay packets; empty if it can. It is tried in a network namespace of its own."""
    command = ["unshare", "--net", "tc", "qdisc", "add", "dev", "lo", "root", "netem", *NETEM_OPTIONS]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        return str(error)
    return result.stderr.strip() if result.returncode != 0 else ""


def main_process(container: str) -> int:
    """Return the process id, on this machine, of a container's first process."""
    return int(compose.docker("inspect", "--format={{.State.Pid}}", container))


def interfaces(process: int) -> list[str]:
    """Return the network interfaces of a process's container, without loopback."""
    command = ["nsenter", f"--target={process}", "--net", "cat", "/proc/net/dev"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise StackError(
            f"cannot enter the container's network: {result.stderr.strip()}",
            hint="install util-linux and iproute2, and run this as root",
        )
    names = [line.split(":")[0].strip() for line in result.stdout.splitlines() if ":" in line]
    return [name for name in names if name.startswith("eth")]


def _netem(process: int, verb: str, interface: str, *options: str) -> None:
    command = ["nsenter", f"--target={process}", "--net", "tc", "qdisc", verb, "dev", interface, "root", "netem"]
    result = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise StackError(f"cannot change the network delay: {result.stderr.strip()}", where=f"process {process}")


def _start(containers: Sequence[str]) -> None:
    compose.docker("start", *containers)


def _unpause(containers: Sequence[str]) -> None:
    paused = [each["Id"] for each in compose.inspect(list(containers)) if each["State"]["Paused"]]
    if paused:
        compose.docker("unpause", *paused)


def _reconnect(networks: dict[str, dict[str, Any]]) -> None:
    for container, networks_of_container in networks.items():
        for network, settings in networks_of_container.items():
            aliases = [f"--alias={alias}" for alias in settings.get("Aliases") or [] if not container.startswith(alias)]
            compose.docker("network", "connect", *aliases, network, container)


def _remove_delay(processes: Sequence[int]) -> None:
    for process in processes:
        for interface in interfaces(process):
            _netem(process, "del", interface)


def _start_cpu_burner(image: str) -> str:
    """Start a container that takes STARVED_FRACTION of this machine's CPU, and return its id.

    Its weight gives it precedence over all other containers, on cgroup v1 and v2; its quota leaves them the rest.
    """
    cores = int(compose.docker("info", "--format={{.NCPU}}"))
    loops = f"for _ in $(seq {cores}); do (while :; do :; done) & done; sleep {LONGEST_STARVATION}"
    return compose.docker(
        *("run", "--detach", "--rm", "--init", "--network=none", "--memory=32m", "--cap-drop=ALL"),
        *(f"--cpu-shares={LARGEST_WEIGHT}", f"--cpus={cores * STARVED_FRACTION:.2f}"),
        *("--entrypoint=sh", image, "-c", loops),
    ).strip()


def _remove(container: str) -> None:
    compose.docker("rm", "--force", "--volumes", container)
