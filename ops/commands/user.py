"""`user`: the accounts of Airflow's users and their roles."""

from __future__ import annotations

import getpass
import json
import re
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote

import typer
from rich.table import Table

from airflow_ha import passwords
from ops.clients.airflow import USERS_API, connect
from ops.compose import running_settings
from ops.errors import StackError
from ops.project import ADMIN, current_project
from ops.screen import ask_to_confirm, console, escape, report

if TYPE_CHECKING:
    from ops.clients.airflow import AirflowClient

OWN: Final = (ADMIN, "monitoring")
"""The stack's own accounts, which every `up` creates with the passwords of their secret files."""
NAME: Final = re.compile(r"[A-Za-z0-9][\w.@+-]{0,63}", re.ASCII)
PAGE: Final = 100


class Action(StrEnum):
    """What `user` does."""

    LIST = "list"
    ADD = "add"
    ROLE = "role"
    REMOVE = "remove"


def user(
    action: Annotated[Action, typer.Argument(help="`role` replaces all roles of a user.")] = Action.LIST,
    name: Annotated[str, typer.Argument(help="The user's name, except for `list`.", show_default=False)] = "",
    roles: Annotated[
        list[str] | None,
        typer.Option("--role", metavar="ROLE", help="With `add` and `role`. Repeatable.", show_default=False),
    ] = None,
    email: Annotated[
        str, typer.Option(metavar="ADDRESS", help="With `add`; by default NAME@localhost.", show_default=False)
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", help="With `remove`: do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With `list`: one JSON object instead of a table.")] = False,
) -> None:
    """List the users of Airflow, add or remove one, or set the roles of one.

    `add` reads the password from a hidden prompt or from standard input. Airflow's roles are Viewer, User, Op, Admin
    and those that you create in its UI.

    Example: ./ops/stack user add ann --role Viewer
    """
    if action is not Action.LIST:
        check_name(action, name)
    project = current_project()
    api = connect(project, running_settings(project), report)
    if action is Action.LIST:
        show(api, as_json=as_json)
    elif action is Action.REMOVE:
        known_user(api, name)
        if not yes:
            ask_to_confirm(f"Remove the user {name}?")
        api.ask("DELETE", f"/users/{quote(name, safe='')}", api=USERS_API)
        report(f"removed the user {name}")
    else:
        chosen = known_roles(api, roles or [])
        if action is Action.ADD:
            add(api, name, email or f"{name}@localhost", chosen)
            report(f"added the user {name} with the role {', '.join(chosen)}")
        else:
            known_user(api, name)
            body = {"roles": [{"name": role} for role in chosen]}
            path = f"/users/{quote(name, safe='')}"
            api.ask("PATCH", path, json=body, params={"update_mask": "roles"}, api=USERS_API)
            report(f"{name} has the role {', '.join(chosen)} and no other")


def check_name(action: Action, name: str) -> None:
    """Refuse a name that no user may have, and the stack's own accounts.

    Raises:
        StackError: It is refused.
    """
    if not NAME.fullmatch(name):
        raise StackError(
            f"cannot {action} the user {name!r}: it is not a name",
            where="NAME",
            hint=f"use letters, digits and . @ + _ -, for example ./ops/stack user {action} ann",
        )
    if name in OWN:
        raise StackError(
            f"cannot {action} the user {name}: it is an account of the stack itself",
            where="NAME",
            hint="write its password into compose/secrets, then run ./ops/stack up",
        )


def all_users(api: AirflowClient) -> list[dict[str, Any]]:
    """Return every user, in the API's form, sorted by name."""
    users: list[dict[str, Any]] = []
    while True:
        page = api.ask("GET", "/users", params={"limit": PAGE, "offset": len(users)}, api=USERS_API)
        users += page["users"]
        if not page["users"] or len(users) >= page["total_entries"]:
            return sorted(users, key=lambda each: str(each["username"]))


def show(api: AirflowClient, *, as_json: bool) -> None:
    """Print the users."""
    users = [
        {
            "name": each["username"],
            "roles": [role["name"] for role in each["roles"] or []],
            "email": each["email"],
            "active": each["active"],
            "last_log_in": each["last_login"],
        }
        for each in all_users(api)
    ]
    if as_json:
        console.print_json(json.dumps({"users": users}))
        return
    table = Table("user", "roles", "e-mail", "active", "last log-in")
    for each in users:
        texts = (each["name"], ", ".join(each["roles"]), each["email"], "yes" if each["active"] else "no")
        table.add_row(*map(escape, texts), escape(str(each["last_log_in"] or "never")))
    console.print(table)


def known_user(api: AirflowClient, name: str) -> None:
    """Refuse a name that no user has.

    Raises:
        StackError: The hint lists the users.
    """
    if api.ask("GET", f"/users/{quote(name, safe='')}", missing=True, api=USERS_API) is None:
        names = [each["username"] for each in all_users(api) if each["username"] not in OWN]
        raise StackError(
            f"cannot find the user {name}: Airflow has no user of this name",
            where="NAME",
            hint=f"use one of: {', '.join(names) or 'none yet'}; ./ops/stack user add {name} adds it",
        )


def known_roles(api: AirflowClient, roles: list[str]) -> list[str]:
    """Return the roles, each once; refuse none at all, and one that Airflow does not have.

    Raises:
        StackError: The hint lists the roles.
    """
    names = [role["name"] for role in api.ask("GET", "/roles", params={"limit": PAGE}, api=USERS_API)["roles"]]
    unknown = [role for role in roles if role not in names]
    if unknown or not roles:
        what = f"use the role {unknown[0]!r}: Airflow has no role of this name" if unknown else "set no role at all"
        raise StackError(f"cannot {what}", where="--role", hint=f"use one of: {', '.join(sorted(names))}")
    return list(dict.fromkeys(roles))


def add(api: AirflowClient, name: str, email: str, roles: list[str]) -> None:
    """Create a user with a password that is read now.

    Raises:
        StackError: The password is too short, or the name or the address is taken.
    """
    for each in all_users(api):
        if name == each["username"] or email == each["email"]:
            raise StackError(
                f"cannot add the user {name}: {each['username']} has this name or e-mail address",
                where="NAME",
                hint="use another one, or ./ops/stack user role for its roles",
            )
    password = read_password(name)
    body = {
        "username": name,
        "email": email,
        "first_name": name,
        "last_name": "-",  # required
        "roles": [{"name": role} for role in roles],
        "password": password,
    }
    api.ask("POST", "/users", json=body, api=USERS_API)


def read_password(name: str) -> str:
    """Return a password from a hidden prompt, given twice, or from standard input.

    FAB checks the length of passwords in its forms only, not in its API.

    Raises:
        StackError: It is too short, or the two differ.
    """
    hint = f"use at least {passwords.MIN_LENGTH} characters in one line"
    if sys.stdin.isatty():
        password = getpass.getpass(f"Password of {name} (not shown): ")
        if password != getpass.getpass("Again: "):
            raise StackError(f"cannot set the password of {name}: the two differ", where="the prompt", hint=hint)
    else:
        password = sys.stdin.read().removesuffix("\n")
    if len(password) < passwords.MIN_LENGTH or "\n" in password:
        raise StackError(
            f"cannot set the password of {name}: it has fewer than {passwords.MIN_LENGTH} characters, or several lines",
            where="the prompt" if sys.stdin.isatty() else "standard input",
            hint=hint,
        )
    return password
