"""`logs`: the logs of the services."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ops import compose, settings_file
from ops.errors import StackError
from ops.project import current_project

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

ESCAPE = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


def logs(
    service: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SERVICE]...", help="Services to show, or one container; all unless given.", show_default=False
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="New lines as they are written.")] = False,
    tail: Annotated[int, typer.Option(min=0, help="Number of last lines of each instance.")] = 100,
) -> None:
    """Show the logs of every service, or of those given.

    Example: ./ops/stack logs scheduler worker --follow --tail 20
    """
    project = current_project()
    if "AIRFLOW_IMAGE" not in settings_file.read(project):
        raise StackError("cannot show logs: there is no stack yet", hint="run ./ops/stack up")
    services = sorted(compose.config(project)["services"])
    names, index = one_container(service or [], services)
    unknown = sorted(set(names) - set(services))
    if unknown:
        raise StackError(
            f"cannot show logs of {unknown[0]!r}: unknown service", hint=f"choose from: {', '.join(services)}"
        )
    options = [*(["--follow"] if follow else []), *index]
    command = compose.command(project, "logs", f"--tail={tail}", *options, *names)
    if sys.stdout.isatty():
        # exec, so that compose itself handles Ctrl-C.
        os.execvpe(command[0], command, compose.environment(project))  # noqa: S606
    raise typer.Exit(run_without_escapes(command, compose.environment(project)))


def run_without_escapes(command: list[str], environment: Mapping[str, str]) -> int:
    """Run a command, print its output without escape sequences, and return its exit code.

    Compose 2.26 begins each line with "erase the line", also without a terminal and with --ansi=never.
    """
    # A session of its own: the docker client does not forward signals to its compose plugin.
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, start_new_session=True) as child:
        try:
            for line in child.stdout or ():
                sys.stdout.buffer.write(ESCAPE.sub(b"", line))
                sys.stdout.buffer.flush()
        except BrokenPipeError:
            # The reader, such as `head`, has ended. Python would report the pipe once more at its exit.
            os.killpg(child.pid, signal.SIGTERM)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except KeyboardInterrupt:
            os.killpg(child.pid, signal.SIGTERM)
            raise
    return child.returncode


def one_container(names: list[str], services: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the services to show, and the option that selects one container of a service.

    Args:
        names: Services, or one container such as `worker-1`, as the lines of the logs name it.
        services: The services of the stack.

    Raises:
        StackError: A container is named beside others, which compose cannot show.
    """
    for name in names:
        service, _, number = name.rpartition("-")
        if name in services or service not in services or not number.isdecimal():
            continue
        if len(names) > 1:
            raise StackError(
                f"cannot show logs of the container {name} with others",
                hint=f"name the service {service}, or {name} alone",
            )
        return [service], [f"--index={number}"]
    return names, []
