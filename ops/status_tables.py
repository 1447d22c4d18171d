"""The status of a stack as tables, for `up` and `status`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from ops.data_tier import is_healthy
from ops.patch_report import UNKNOWN
from ops.project import ADMIN
from ops.screen import console, escape
from ops.services import PAGES, page_urls
from ops.status import is_ready, service_statuses

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ops import data_tier
    from ops.project import Project
    from ops.status import ServiceStatus, Status

HEALTH_COLOURS = {"healthy": "green", "done": "green", "starting": "yellow", "unhealthy": "red", "unwatched": "green"}


def print_status(found: Status) -> None:
    """The status as tables."""
    if not found["services"]:
        console.print("There is no stack yet: ./ops/stack up starts one.")
        return
    if not any(service["instances"] for service in found["services"]):
        console.print("The stack is down; its data and settings are kept: ./ops/stack up starts it.")
        return
    table = Table("service", "healthy", "instances", title="ready" if found["ready"] else "not ready")
    for service in found["services"]:
        ok = is_ready(service)
        instances = "\n".join(
            f"{instance['id']}  [{HEALTH_COLOURS[instance['health']]}]{instance['state']}, {instance['health']}[/]"
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
        colour = "green" if is_healthy(member) else "red"
        table.add_row(member["service"], member["role"], f"[{colour}]{member['state']}[/]", lag)
    console.print(table)


def print_urls(project: Project, settings: Mapping[str, str]) -> None:
    """The URLs with their health, at the end of `up`."""
    from ops import compose

    login = {"user": ADMIN, "password_file": project.shown(project.secrets / "airflow_admin_password")}
    services = service_statuses(compose.config(project))
    print_table_of_urls(page_urls(settings), services, login)


def print_table_of_urls(urls: Mapping[str, str], services: list[ServiceStatus], login: Mapping[str, str]) -> None:
    """Where to open what, whether it is healthy, and how to log in."""
    health = {service["name"]: is_ready(service) for service in services}
    folder = login["password_file"].rpartition("/")[0]
    table = Table("page", "health", "URL", "log in as", "password in")
    for column in table.columns:
        column.overflow = "fold"
    for name, url in urls.items():
        page = PAGES[name]
        shown = "[green]healthy[/]" if health.get(page.service, False) else "[red]not healthy[/]"
        log_in = (login["user"], f"{folder}/{page.login}") if page.login else ("", "")
        table.add_row(name, shown, url, *log_in)
    console.print(table)


PATCH_COLOURS = {"applied": "green", "skipped": "red", "off": "yellow", "unknown": "yellow"}


def print_not_applied(patches: Iterable[Mapping[str, str]]) -> None:
    """Print a line for each reason why patches are off or skipped."""
    names: dict[tuple[str, str], list[str]] = {}
    for patch in patches:
        shown = patch["components"] if patch["state"] == UNKNOWN else patch["patch"]
        names.setdefault((patch["state"], patch["reason"]), []).append(shown)
    for (state, reason), those in names.items():
        listed = ", ".join(dict.fromkeys(those))
        console.print(f"[{PATCH_COLOURS[state]}]patches {state}[/] ({escape(reason)}): {listed}", soft_wrap=True)
