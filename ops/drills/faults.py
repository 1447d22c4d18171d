"""How a fault strikes containers, and how it is taken back. Only ever those that it is given."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Literal

from ops import compose
from ops.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FaultKind = Literal["crash", "kill", "stop", "freeze", "cut", "slow", "starve"]

MEANING: dict[FaultKind, str] = {
    "crash": "its main process gets SIGKILL, and Docker restarts it at once",
    "kill": "SIGKILL, and it stays away",
    "stop": "a graceful stop, and it stays away",
    "freeze": "every process of it is stopped where it is (docker pause)",
    "cut": "it loses all its networks",
    "slow": "each packet it sends takes 200 ms longer, and one in twenty is lost",
    "starve": "other containers take 90% of the CPU before anything else gets any",
}
SLOW = ("delay", "200ms", "loss", "5%")
STARVED_OF = 0.9
"""The part of the machine's CPU that is taken away."""
LARGEST_WEIGHT = "262144"
"""Docker's largest `--cpu-shares`, 256 times the default: what has it takes all that its quota allows."""
LONGEST_STARVATION = 900
"""Seconds after which the burner ends by itself, also where nobody lives to remove it."""


def check(kind: FaultKind) -> None:
    """Refuses a fault that cannot be made here.

    Raises:
        StackError: It needs root on the Linux machine that Docker runs on, or what its kernel lacks.
    """
    if kind in ("crash", "slow") and (sys.platform != "linux" or os.geteuid() != 0):
        raise StackError(
            f"{kind} reaches into the containers' processes from outside",
            hint="run this as root on the Linux machine that Docker runs on",
        )
    if kind == "slow" and (said := why_not_slow()):
        raise StackError(
            f"the network cannot be made slow here: {said}",
            hint="install iproute2; the kernel needs its module sch_netem",
        )


def strike(kind: FaultKind, containers: Sequence[str], image: str = "") -> Callable[[], None]:
    """Strikes all the containers at once; returns what takes the fault back.

    Args:
        kind: see MEANING.
        containers: Docker's ids of what is struck; none where that is the machine.
        image: One with a shell, for what takes the CPU away.
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
                _thaw(containers)
                raise
            return lambda: _thaw(containers)
        case "cut":
            networks = {one["Id"]: one["NetworkSettings"]["Networks"] for one in compose.inspect(list(containers))}
            for container, of in networks.items():
                for network in of:
                    compose.docker("network", "disconnect", "--force", network, container)
            return lambda: _reconnect(networks)
        case "slow":
            processes = [main_process(container) for container in containers]
            for process in processes:
                for interface in interfaces(process):
                    _tc(process, "add", interface, *SLOW)
            return lambda: _quicken(processes)
        case "starve":
            burner = _burn(image)
            return lambda: _remove(burner)


def why_not_slow() -> str:
    """Why packets cannot be held up on this machine; empty when they can: tried in a network of its own."""
    tried = ["unshare", "--net", "tc", "qdisc", "add", "dev", "lo", "root", "netem", *SLOW]
    try:
        result = subprocess.run(tried, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        return str(error)
    return result.stderr.strip() if result.returncode != 0 else ""


def main_process(container: str) -> int:
    """The process of this machine that is a container's first."""
    return int(compose.docker("inspect", "--format={{.State.Pid}}", container))


def interfaces(process: int) -> list[str]:
    """The network interfaces that a process's container has, without its loopback."""
    command = ["nsenter", f"--target={process}", "--net", "cat", "/proc/net/dev"]
    names = subprocess.run(command, capture_output=True, text=True, check=False)
    if names.returncode != 0:
        raise StackError(
            f"the container's network cannot be reached: {names.stderr.strip()}",
            hint="install util-linux and iproute2, and run this as root",
        )
    found = [line.split(":")[0].strip() for line in names.stdout.splitlines() if ":" in line]
    return [name for name in found if name.startswith("eth")]


def _tc(process: int, verb: str, interface: str, *settings: str) -> None:
    command = ["nsenter", f"--target={process}", "--net", "tc", "qdisc", verb, "dev", interface, "root", "netem"]
    result = subprocess.run([*command, *settings], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise StackError(f"the network could not be made slow: {result.stderr.strip()}", where=f"process {process}")


def _start(containers: Sequence[str]) -> None:
    compose.docker("start", *containers)


def _thaw(containers: Sequence[str]) -> None:
    paused = [one["Id"] for one in compose.inspect(list(containers)) if one["State"]["Paused"]]
    if paused:
        compose.docker("unpause", *paused)


def _reconnect(networks: dict[str, dict[str, Any]]) -> None:
    for container, of in networks.items():
        for network, settings in of.items():
            aliases = [f"--alias={alias}" for alias in settings.get("Aliases") or [] if not container.startswith(alias)]
            compose.docker("network", "connect", *aliases, network, container)


def _quicken(processes: Sequence[int]) -> None:
    for process in processes:
        for interface in interfaces(process):
            _tc(process, "del", interface)


def _burn(image: str) -> str:
    """Start a container that takes STARVED_OF of this machine's CPU from all others, and return its id.

    The weight puts it before them, on cgroup v1 and v2; the quota leaves them the rest.
    """
    cores = int(compose.docker("info", "--format={{.NCPU}}"))
    loops = f"for _ in $(seq {cores}); do (while :; do :; done) & done; sleep {LONGEST_STARVATION}"
    return compose.docker(
        *("run", "--detach", "--rm", "--init", "--network=none", "--memory=32m", "--cap-drop=ALL"),
        *(f"--cpu-shares={LARGEST_WEIGHT}", f"--cpus={cores * STARVED_OF:.2f}"),
        *("--entrypoint=sh", image, "-c", loops),
    ).strip()


def _remove(container: str) -> None:
    compose.docker("rm", "--force", "--volumes", container)
