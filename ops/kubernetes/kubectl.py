"""`kubectl` and `helm` commands for one cluster, with their output as typed values."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from typing import TYPE_CHECKING, Any, Final

from ops import time_limits
from ops.child_process import ChildFailedError, output_lines, run_limited, run_with_progress
from ops.errors import FAILURE, StackError
from ops.kubernetes.chart import program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from ops.kubernetes.translation import Manifest

FORWARD_SECONDS: Final = 20.0
FORWARDED: Final = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")


def command(settings: Mapping[str, str], *arguments: str) -> list[str]:
    """Return a whole kubectl command line for the cluster's namespace."""
    context = settings["KUBERNETES_CONTEXT"]
    chosen = [f"--context={context}"] if context else []
    return [program("kubectl"), *chosen, f"--namespace={settings['KUBERNETES_NAMESPACE']}", *arguments]


def helm(settings: Mapping[str, str], *arguments: str) -> list[str]:
    """Return a whole helm command line for the cluster's namespace."""
    context = settings["KUBERNETES_CONTEXT"]
    chosen = [f"--kube-context={context}"] if context else []
    return [program("helm"), *chosen, f"--namespace={settings['KUBERNETES_NAMESPACE']}", *arguments]


def output(settings: Mapping[str, str], *arguments: str, stdin: str = "") -> str:
    """Return the standard output of a kubectl command.

    Raises:
        StackError: The command failed; the error quotes its message.
    """
    result = run_limited(command(settings, *arguments), time_limits.COMMAND, f"run kubectl {arguments[0]}", stdin=stdin)
    if result.returncode != 0:
        raise StackError(
            f"cannot run kubectl {arguments[0]}: {result.stderr.strip()}",
            hint="check the cluster with ./ops/stack kubernetes check",
            code=FAILURE,
        )
    return result.stdout


def read(settings: Mapping[str, str], *arguments: str) -> Any:
    """Return the content of `kubectl get`."""
    return json.loads(output(settings, "get", *arguments, "--output=json"))


def succeeds(settings: Mapping[str, str], *arguments: str) -> bool:
    """Return whether a kubectl command succeeds."""
    what = f"run kubectl {arguments[0]}"
    return run_limited(command(settings, *arguments), time_limits.COMMAND, what).returncode == 0


def apply(settings: Mapping[str, str], *objects: Manifest) -> None:
    """Apply objects: create what is missing and change what differs."""
    # One List, since kubectl reads a second document as JSON or as YAML by what the first one happens to be.
    content = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    output(settings, "apply", "--server-side", "--force-conflicts", "--filename=-", stdin=content)


def apply_folder(settings: Mapping[str, str], folder: Path) -> None:
    """Apply a folder of a Kustomize base."""
    output(settings, "apply", "--server-side", "--force-conflicts", f"--kustomize={folder}")


def wait_for_rollout(settings: Mapping[str, str], name: str, seconds: float, report: Callable[[str], None]) -> None:
    """Wait until every pod of a Deployment or StatefulSet is ready, and report its progress.

    Raises:
        StackError: They are not ready in time.
    """
    try:
        run_with_progress(
            command(settings, "rollout", "status", name, f"--timeout={seconds:.0f}s"), lambda line: line, report
        )
    except ChildFailedError as error:
        raise StackError(
            f"cannot confirm that {name} is ready: {error.tail[-1] if error.tail else 'no message'}",
            hint=f"run kubectl describe {name}, and kubectl logs {name} --all-containers",
            code=FAILURE,
        ) from error


def run_helm(settings: Mapping[str, str], report: Callable[[str], None], *arguments: str) -> None:
    """Run a long helm command.

    Raises:
        StackError: It failed; the error quotes its last lines.
    """
    try:
        run_with_progress(helm(settings, *arguments), lambda _: None, report)
    except ChildFailedError as error:
        raise StackError(
            f"cannot run helm {arguments[0]}:\n" + "\n".join(error.tail[-8:]),
            hint="run ./ops/stack kubernetes status, then kubectl logs of the pod that is not ready",
            code=FAILURE,
        ) from error


@contextlib.contextmanager
def forwarded(settings: Mapping[str, str], target: str, port: int) -> Iterator[int]:
    """Forward a local port to a pod or Service during the block; yield the local port.

    Raises:
        StackError: kubectl does not forward.
    """
    child = subprocess.Popen(
        command(settings, "port-forward", target, f":{port}"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield _local_port(child, target)
    finally:
        child.terminate()
        child.wait()


def _local_port(child: subprocess.Popen[str], target: str) -> int:
    last = ""

    def give_up(seconds: float) -> None:
        if seconds > FORWARD_SECONDS:
            raise StackError(f"cannot reach {target}: kubectl port-forward prints nothing", code=FAILURE)

    assert child.stdout is not None  # noqa: S101 (PIPE above)
    for last in output_lines(child.stdout, give_up):
        if match := FORWARDED.match(last):
            return int(match[1])
    raise StackError(f"cannot reach {target}: {last}", hint="run ./ops/stack kubernetes status", code=FAILURE)


def labelled(settings: Mapping[str, str], kinds: Sequence[str], label: str) -> list[Any]:
    """Return the objects of some kinds that a label selects."""
    items: list[Any] = read(settings, ",".join(kinds), f"--selector={label}")["items"]
    return items
