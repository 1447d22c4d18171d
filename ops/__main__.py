"""`./ops/stack`: the list of its commands, each in the file of its name in ops/commands/."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from ops.commands.alerts import alerts
from ops.commands.autoscale import autoscale
from ops.commands.backup import backup
from ops.commands.bench import bench
from ops.commands.dashboards import dashboards
from ops.commands.doctor import doctor
from ops.commands.down import down
from ops.commands.drill import drill
from ops.commands.failover import failover
from ops.commands.kubernetes import kubernetes
from ops.commands.logs import logs
from ops.commands.maintenance import maintenance
from ops.commands.patches import patches
from ops.commands.restart import restart
from ops.commands.restore import restore
from ops.commands.rotate import rotate
from ops.commands.scale import scale
from ops.commands.silence import silence
from ops.commands.slack import slack
from ops.commands.status import status
from ops.commands.support_bundle import support_bundle
from ops.commands.test import test
from ops.commands.trigger import trigger
from ops.commands.up import up
from ops.commands.upgrade import upgrade
from ops.commands.user import user
from ops.errors import INTERRUPTED, StackError
from ops.project import ROOT, version
from ops.screen import error_console

PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}

app = typer.Typer(
    name="./ops/stack",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def show_version(is_given: bool) -> None:
    """Print the version and exit."""
    if is_given:
        typer.echo(version(ROOT))
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Operate Airflow HA: an Airflow on Celery that survives the loss of any one container."""


app.command()(up)
app.command()(upgrade)
app.command()(status)
app.command()(doctor)
app.command()(scale)
app.command()(autoscale)
app.command()(trigger)
app.command()(failover)
app.command()(logs)
app.command()(alerts)
app.command()(silence)
app.command()(slack)
app.command()(user)
app.command()(patches)
app.command()(support_bundle)
app.command()(restart)
app.command()(rotate)
app.command()(maintenance)
app.command()(backup)
app.command()(restore)
app.command()(dashboards)
app.command()(drill)
app.command()(bench)
app.add_typer(kubernetes, name="kubernetes")
app.command(context_settings=PASS_ON)(test)
app.command()(down)


def main() -> None:
    """Run a command; print a StackError in three lines instead of a traceback."""
    # SIGTERM and a lost terminal act like Ctrl-C: child processes are terminated, and a change is reverted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    try:
        app(prog_name="./ops/stack")
    except StackError as error:
        error_console.print(str(error), markup=False, soft_wrap=True)
        sys.exit(error.code)
    except SystemExit as exit_request:
        # Typer exits with this code on Ctrl-C.
        if exit_request.code == INTERRUPTED:
            error_console.print("\nerror: interrupted\nhint: run ./ops/stack up to complete a change that had started")
        raise


if __name__ == "__main__":
    main()
