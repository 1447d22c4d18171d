"""The status of a stack as tables, for `up` and `status`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from ops import compose
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
    from ops.secret_ages import SecretAge
    from ops.status import InstanceStatus, ServiceStatus, Status

HEALTH_COLOURS = {"healthy": "green", "done": "green", "starting": "yellow", "unhealthy": "red", "unwatched": "green"}


def print_status(status: Status) -> None:
    """Print the status of a stack as tables."""
    if not status["services"]:
        console.print("There is no stack yet. Run ./ops/stack up to start one.")
        return
    if not any(service["instances"] for service in status["services"]):
        console.print("The stack is down; its data and settings are kept. Run ./ops/stack up to start it.")
        return
    table = Table("service", "healthy", "instances", title="ready" if status["ready"] else "not ready")
    for service in status["services"]:
        instances = "\n".join(
            f"{instance['id']}  [{HEALTH_COLOURS[instance['health']]}]{instance['state']}, {instance['health']}[/]"
            + (f"[yellow], suspended tasks: {suspended}[/]" if (suspended := instance["suspended_tasks"]) else "")
            + refused_log_ins(instance)
            + (f"[yellow], {escape(waits)}[/]" if (waits := instance["waits_for"]) else "")
            for instance in service["instances"]
        )
        colour = "green" if is_ready(service) else "red"
        table.add_row(service["name"], f"[{colour}]{service['healthy']} of {service['wanted']}[/]", instances)
    console.print(table)
    print_data(status["data"] or [])
    if status["dags"] is None:
        console.print(
            "[yellow]Airflow does not answer or refuses the log-in; import errors of DAG files are unknown.[/]"
        )
    for error in (status["dags"] or {}).get("import_errors", []):
        console.print(f"[red]{escape(error['file'])} does not import:[/] {escape(error['error'])}", soft_wrap=True)
    for target in status["targets"] or []:
        if target["health"] != "up":
            console.print(f"[red]Prometheus cannot scrape {target['job']} ({target['instance']}):[/] {target['error']}")
    print_not_applied(status["patches"])
    if certificates := status["certificates"]:
        name, expires = min(certificates.items(), key=lambda each: each[1])
        console.print(f"{len(certificates)} certificates; the first to expire is {name}'s, on {expires[:10]}")
    print_table_of_urls(status["urls"], status["services"], status["login"])
    images = Table("image", "reference", "origin")
    for key, image in status["images"].items():
        images.add_row(key.removesuffix("_IMAGE").lower(), image["reference"], image["origin"])
    console.print(images)
    print_secret_ages(status["secrets"])


def print_secret_ages(ages: list[SecretAge]) -> None:
    """Print how old each secret is, and the step of its rotation."""
    table = Table("secret", "days old", "rotation")
    for age in ages:
        table.add_row(age["name"], f"{age['days']:.1f}", f"[yellow]{age['rotation']}[/]" if age["rotation"] else "")
    console.print(table)


def refused_log_ins(instance: InstanceStatus) -> str:
    """Return the numbers of addresses and users whose log-ins an instance refuses, as marked-up text."""
    addresses, users = instance["refused_addresses"], instance["refused_users"]
    return f"[yellow], log-ins refused: {addresses} addresses, {users} users[/]" if addresses or users else ""


def print_data(members: list[data_tier.Member]) -> None:
    """Print the role, state and lag of each Postgres and Redis node."""
    if not members:
        return
    table = Table("data", "role", "state", "lag")
    for member in members:
        lag = "" if member["lag_bytes"] is None else f"{member['lag_bytes']} bytes"
        colour = "green" if is_healthy(member) else "red"
        table.add_row(member["service"], member["role"], f"[{colour}]{member['state']}[/]", lag)
    console.print(table)


def print_urls(project: Project, settings: Mapping[str, str]) -> None:
    """Print the URLs of the pages with their health."""
    login = {"user": ADMIN, "password_file": project.shown(project.secrets / "airflow_admin_password")}
    services = service_statuses(compose.config(project))
    print_table_of_urls(page_urls(settings), services, login)


def print_table_of_urls(urls: Mapping[str, str], services: list[ServiceStatus], login: Mapping[str, str]) -> None:
    """Print the URL, health and log-in of each page."""
    health = {service["name"]: is_ready(service) for service in services}
    folder = login["password_file"].rpartition("/")[0]
    table = Table("page", "health", "URL", "log in as", "password in")
    for column in table.columns:
        column.overflow = "fold"
    for name, url in urls.items():
        page = PAGES[name]
        page_health = "[green]healthy[/]" if health.get(page.service, False) else "[red]not healthy[/]"
        log_in = (login["user"], f"{folder}/{page.login}") if page.login else ("", "")
        table.add_row(name, page_health, url, *log_in)
    console.print(table)


PATCH_COLOURS = {"applied": "green", "skipped": "red", "off": "yellow", "unknown": "yellow"}


def print_not_applied(patches: Iterable[Mapping[str, str]]) -> None:
    """Print the patches that are off or skipped, a line for each reason."""
    names: dict[tuple[str, str], list[str]] = {}
    for patch in patches:
        # If a component does not answer, its patches are unknown: the line lists the components instead.
        listed = patch["components"].split(", ") if patch["state"] == UNKNOWN else [patch["patch"]]
        names.setdefault((patch["state"], patch["reason"]), []).extend(listed)
    for (state, reason), group in names.items():
        text = ", ".join(dict.fromkeys(group))
        console.print(f"[{PATCH_COLOURS[state]}]patches {state}[/] ({escape(reason)}): {text}", soft_wrap=True)
