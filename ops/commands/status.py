"""`status`: what runs, how it is, and where to open it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ops import data_tier
from ops import status as stack_status
from ops.commands.patches import print_not_applied
from ops.errors import FAILURE
from ops.project import ADMIN, current_project
from ops.screen import console, escape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ops.project import Project

COLOURS = {"healthy": "green", "done": "green", "starting": "yellow", "unhealthy": "red", "unwatched": "green"}


def status(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
) -> None:
    """Show every service with its instances, the DAG files that do not import, and the URLs.

    Exits with 0 when the stack is ready: every service has its instances, and all are healthy.
    """
    found = stack_status.collect(current_project())
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        print_status(found)
    raise typer.Exit(0 if found["ready"] else FAILURE)


def print_status(found: stack_status.Status) -> None:
    """The status as tables."""
    if not found["services"]:
        console.print("There is no stack yet: ./ops/stack up starts one.")
        return
    if not any(service["instances"] for service in found["services"]):
        console.print("The stack is down; its data and settings are kept: ./ops/stack up starts it.")
        return
    table = Table("service", "healthy", "instances", title="ready" if found["ready"] else "not ready")
    for service in found["services"]:
        ok = stack_status.is_whole(service)
        instances = "\n".join(
            f"{instance['id']}  [{COLOURS[instance['health']]}]{instance['state']}, {instance['health']}[/]"
            + (f"[yellow], suspended tasks: {suspended}[/]" if (suspended := instance["suspended_tasks"]) else "")
            for instance in service["instances"]
        )
        colour = "green" if ok else "red"
        table.add_row(service["name"], f"[{colour}]{service['healthy']} of {service['wanted']}[/]", instances)
    console.print(table)
    print_data(found["data"] or [])
    if found["dags"] is None:
        console.print(
            "[yellow]Airflow does not answer or refuses the log-in: import errors of DAG files are unknown.[/]"
        )
    for error in (found["dags"] or {}).get("import_errors", []):
        console.print(f"[red]{escape(error['file'])} does not import:[/] {escape(error['error'])}", soft_wrap=True)
    for target in found["targets"] or []:
        if target["health"] != "up":
            console.print(f"[red]Prometheus cannot scrape {target['job']} ({target['instance']}):[/] {target['error']}")
    print_not_applied(found["patches"])
    print_table_of_urls(found["urls"], found["services"], found["login"])
    images = Table("image", "reference", "origin")
    for key, image in found["images"].items():
        images.add_row(key.removesuffix("_IMAGE").lower(), image["reference"], image["origin"])
    console.print(images)


def print_data(members: list[data_tier.Member]) -> None:
    """Who is the primary, and how far behind the others are."""
    if not members:
        return
    table = Table("data", "role", "state", "behind")
    for member in members:
        lag = "" if member["lag_bytes"] is None else f"{member['lag_bytes']} bytes"
        colour = "green" if data_tier.is_well(member) else "red"
        table.add_row(member["service"], member["role"], f"[{colour}]{member['state']}[/]", lag)
    console.print(table)


def print_urls(project: Project, settings: Mapping[str, str]) -> None:
    """The URLs with their health, at the end of `up`."""
    from ops import compose

    login = {"user": ADMIN, "password_file": project.shown(project.secrets / "airflow_admin_password")}
    services = stack_status.services(compose.config(project))
    print_table_of_urls(stack_status.urls(settings), services, login)


def print_table_of_urls(
    urls: Mapping[str, str], services: list[stack_status.ServiceStatus], login: Mapping[str, str]
) -> None:
    """Where to open what, whether it is healthy, and how to log in."""
    behind = {"airflow": "gateway", "alertmanager": "alertmanager-1", "slack_stub": "slack-stub"}
    health = {service["name"]: stack_status.is_whole(service) for service in services}
    folder = login["password_file"].rpartition("/")[0]
    passwords = {
        "airflow": login["password_file"],
        "flower": f"{folder}/flower_password",
        "grafana": f"{folder}/grafana_admin_password",
    }
    table = Table("page", "health", "URL", "log in as", "password in")
    for column in table.columns:
        column.overflow = "fold"
    for name, url in urls.items():
        well = health.get(behind.get(name, name), False)
        colour = "[green]healthy[/]" if well else "[red]not healthy[/]"
        user = login["user"] if name in passwords else ""
        table.add_row(name, colour, url, user, passwords.get(name, ""))
    console.print(table)
