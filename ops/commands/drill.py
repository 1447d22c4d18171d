"""`drill`: a fault strikes this very stack under a live load, and the promises are checked."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table

from ops import status
from ops.commands.screen import console, heading, report
from ops.drills import faults, ledger
from ops.drills.catalogue import DRILLS, Drill
from ops.errors import FAILURE, StackError
from ops.lock import stack_lock
from ops.project import current_project


def drill(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Which; none lists them.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All that this stack has the services for.")] = False,
    repeat: Annotated[int, typer.Option(min=1, max=50, help="How often each is held.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON.")] = False,
) -> None:
    """Strike the running stack with faults, and see that no task is lost and none runs twice.

    Each drill starts a run of short and long tasks that write what they do into a ledger outside Airflow, kills,
    freezes or cuts off what it says, and counts. The stack is whole again before the next. Exits with 0 when every
    promise was kept.
    """
    if not names and not every:
        list_drills()
        return
    project = current_project()
    with stack_lock(project, "drill", report):
        settings = status.running_settings(project, cure="./ops/stack up")
        chosen = choose(names or [], every=every, services=set(running_services(settings["COMPOSE_PROJECT_NAME"])))
        faults.check({one.fault for one in chosen})
        # httpx and all that, only when there is something to do.
        from ops.drills import conduct
        from ops.drills.report import HEADINGS, rows
        from ops.drills.report import as_json as outcomes_as_json

        outcomes = []
        api = status.client(project, settings, report)
        folder = (project.compose_directory / (settings.get("DAGS_DIR") or "../dags")).resolve()
        name = settings["COMPOSE_PROJECT_NAME"]
        with ledger.keeping(name, settings["POSTGRES_IMAGE"]) as book, conduct.load_dag(folder, api, report):
            for one in chosen:
                for number in range(1, repeat + 1):
                    heading(f"{one.name}, {number} of {repeat}: {one.sentence}")
                    outcomes.append(conduct.conduct(one, project, settings, api, book, report))
                    report("kept" if not outcomes[-1].broken else "; ".join(outcomes[-1].broken))
    if as_json:
        typer.echo(json.dumps(outcomes_as_json(outcomes), indent=2))
    else:
        table = Table(*HEADINGS)
        for row in rows(outcomes):
            table.add_row(*row)
        console.print(table)
    raise typer.Exit(FAILURE if any(outcome.broken for outcome in outcomes) else 0)


def running_services(name: str) -> list[str]:
    """The services that have containers."""
    from ops import compose

    return list(compose.instances(name))


def list_drills() -> None:
    """What there is to choose from."""
    table = Table("drill", "what happens", "recovery within")
    for one in DRILLS:
        table.add_row(one.name, f"{one.sentence}: {faults.MEANING[one.fault]}", f"{one.deadline:.0f} s")
    console.print(table)


def choose(names: list[str], *, every: bool, services: set[str]) -> list[Drill]:
    """The drills that were asked for.

    Raises:
        StackError: One does not exist, or strikes what this stack does not have.
    """
    known = {one.name: one for one in DRILLS}
    for name in names:
        if name not in known:
            raise StackError(f"there is no drill {name!r}", cure=f"these are: {', '.join(known)}")
        if missing := sorted(set(known[name].services) - services):
            raise StackError(
                f"{name} strikes {', '.join(missing)}, which this stack does not have", cure="./ops/stack status"
            )
    return [one for one in DRILLS if one.name in names or (every and set(one.services) <= services)]
