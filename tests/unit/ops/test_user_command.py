"""`user` adds, lists and removes users of Airflow by FAB's REST API, and refuses what would lock somebody out."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import httpx
import pytest

from ops.clients.airflow import AirflowClient
from ops.commands import user as command
from ops.commands.user import Action
from ops.errors import StackError

PASSWORD = "twelve-chars"
ROLES = ("Admin", "Op", "User", "Viewer")


class Fab:
    """FAB's API with users in memory; a page has two of them."""

    def __init__(self) -> None:
        self.users: dict[str, dict[str, Any]] = {}
        self.passwords: dict[str, str] = {}
        for name in ("admin", "monitoring"):
            self.create({"username": name, "email": name, "roles": [{"name": "Admin"}], "password": "x"})

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        self.passwords[body["username"]] = body.pop("password")
        self.users[body["username"]] = {**body, "active": True, "last_login": None}
        return self.users[body["username"]]

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": "t"})
        kind, _, name = request.url.path.removeprefix("/auth/fab/v1/").partition("/")
        if kind == "roles":
            return httpx.Response(200, json={"roles": [{"name": each, "actions": []} for each in ROLES]})
        if request.method == "POST":
            return httpx.Response(200, json=self.create(json.loads(request.content)))
        if name and name not in self.users:
            return httpx.Response(404, json={"detail": "not found"})
        if request.method == "DELETE":
            del self.users[name]
            return httpx.Response(204)
        if request.method == "PATCH":
            assert request.url.params["update_mask"] == "roles"
            self.users[name]["roles"] = json.loads(request.content)["roles"]
        if name:
            return httpx.Response(200, json=self.users[name])
        offset = int(request.url.params["offset"])
        page = list(self.users.values())[offset : offset + 2]
        return httpx.Response(200, json={"users": page, "total_entries": len(self.users)})

    def roles_of(self, name: str) -> list[str]:
        return [role["name"] for role in self.users[name]["roles"]]


@pytest.fixture
def fab(project, monkeypatch) -> Fab:
    server = Fab()
    client = AirflowClient("http://airflow", "admin", "x", transport=httpx.MockTransport(server.answer))
    monkeypatch.setattr(command, "running_settings", lambda _: {})
    monkeypatch.setattr(command, "connect", lambda *_: client)
    monkeypatch.setattr(sys, "stdin", io.StringIO(PASSWORD + "\n"))
    return server


def test_a_user_is_added_changed_listed_and_removed(fab, capsys):
    command.user(Action.ADD, "ann", ["Viewer"])
    assert (fab.roles_of("ann"), fab.passwords["ann"]) == (["Viewer"], PASSWORD)
    command.user(Action.ROLE, "ann", ["Op", "User", "Op"])
    assert fab.roles_of("ann") == ["Op", "User"]
    capsys.readouterr()
    command.user(as_json=True)
    listed = json.loads(capsys.readouterr().out)["users"]
    assert [each["name"] for each in listed] == ["admin", "ann", "monitoring"], "of every page"
    assert PASSWORD not in json.dumps(listed)
    command.user(Action.REMOVE, "ann", yes=True)
    assert set(fab.users) == {"admin", "monitoring"}


@pytest.mark.parametrize("password", ["eleven-char", "", "twelve-chars\nand-more"])
def test_a_password_that_the_ui_refuses_is_refused(fab, monkeypatch, password):
    monkeypatch.setattr(sys, "stdin", io.StringIO(password + "\n"))
    with pytest.raises(StackError, match="12 characters"):
        command.user(Action.ADD, "ann", ["Viewer"])
    assert "ann" not in fab.users


@pytest.mark.parametrize("action", [Action.ADD, Action.ROLE, Action.REMOVE])
@pytest.mark.parametrize("name", ["admin", "monitoring", "", "a b", "-x", "a" * 65])
def test_accounts_of_the_stack_and_other_names_are_refused(fab, action, name):
    with pytest.raises(StackError):
        command.user(action, name, ["Viewer"], yes=True)
    assert set(fab.users) == {"admin", "monitoring"}


def test_unknown_roles_and_users_are_refused_with_the_known_ones(fab):
    for roles in (["viewer"], []):
        with pytest.raises(StackError) as refused:
            command.user(Action.ADD, "ann", roles)
        assert "Viewer" in refused.value.hint
    command.user(Action.ADD, "ann", ["Viewer"])
    for action in (Action.ROLE, Action.REMOVE):
        with pytest.raises(StackError, match="bob") as refused:
            command.user(action, "bob", ["Viewer"], yes=True)
        assert "ann" in refused.value.hint


def test_a_taken_name_or_address_is_refused_before_the_password(fab):
    command.user(Action.ADD, "ann", ["Viewer"])
    for name, email in (("ann", ""), ("bob", "ann@localhost")):
        with pytest.raises(StackError, match="has this name or e-mail"):
            command.user(Action.ADD, name, ["Viewer"], email)


def test_without_a_terminal_a_removal_needs_yes(fab):
    command.user(Action.ADD, "ann", ["Viewer"])
    with pytest.raises(StackError, match="confirmation"):
        command.user(Action.REMOVE, "ann")
    assert "ann" in fab.users
